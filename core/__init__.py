"""What more than one phase must agree on: params, records, manifests, the format of a hole, syntax, scrubbing."""
