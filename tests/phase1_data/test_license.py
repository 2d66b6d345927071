"""Promises of licences: what people write becomes SPDX, and a policy lets in what it says."""

from __future__ import annotations

from importlib import metadata

import pytest

from phase1_data.license import allowed, of_column, of_distribution, of_header, of_text, spdx

BSD = "Redistribution and use in source and binary forms, with or without modification, are permitted provided that ..."


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("mit", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache-2.0 OR BSD-3-Clause", "Apache-2.0 OR BSD-3-Clause"),
        ("BSD License", "unknown"),  # which of them?
        ("GPLv2", "GPL-2.0-only"),
        ("see LICENSE", "unknown"),
        ("", "unknown"),
        ("UNKNOWN", "unknown"),
    ],
)
def test_what_people_write_becomes_spdx(text, want):
    assert spdx(text) == want


@pytest.mark.parametrize(
    ("expression", "policy", "yes"),
    [
        ("MIT", "permissive", True),
        ("MIT OR GPL-3.0-only", "permissive", True),
        ("MIT AND GPL-3.0-only", "permissive", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "permissive", False),
        ("Apache-2.0 WITH LLVM-exception", "permissive", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "permissive", False),
        ("LGPL-2.1-only", "permissive", False),
        ("unknown", "permissive", False),
        ("unknown", "any", True),
        ("GPL-3.0-or-later", frozenset({"GPL-3.0-or-later"}), True),
        ("MIT", frozenset({"Apache-2.0"}), False),
    ],
)
def test_a_policy_lets_in_what_it_says(expression, policy, yes):
    assert allowed(expression, policy) is yes


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("                   Apache License\n             Version 2.0, January 2004", "Apache-2.0"),
        (BSD, "BSD-2-Clause"),
        (BSD + " Neither the name of X nor the names of its contributors", "BSD-3-Clause"),
        (BSD + " All advertising materials mentioning", "BSD-4-Clause"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 3", "LGPL-3.0-only"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991", "GPL-2.0-only"),
        ("Mozilla Public License Version 2.0", "MPL-2.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("all rights reserved, ask us", "unknown"),
        (BSD + " Neither the name of\n\n\n bundled: GNU GENERAL PUBLIC LICENSE", "BSD-3-Clause"),  # its own comes first
    ],
)
def test_a_licence_text_is_known_by_its_sentences(text, want):
    assert of_text(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */\n", "Apache-2.0 WITH LLVM-exception"),
        ("x = 1\n" * 60 + "# SPDX-License-Identifier: MIT\n", "unknown"),  # too deep to be a header
        ("x = 1\n", "unknown"),
        ("# SPDX-License-Identifier: whatever you like\n", "unknown"),
    ],
)
def test_a_file_speaks_for_itself(text, want):
    assert of_header(text) == want


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (["MIT"], ("MIT", "column")),
        (["MIT", "GPL-3.0-only"], ("MIT AND GPL-3.0-only", "column")),  # both were found in the repository: both bind
        (["MIT", "no such"], ("unknown", "none")),
        ([], ("unknown", "none")),
        (None, ("unknown", "none")),
    ],
)
def test_a_column_of_several_licences_binds_by_all(value, want):
    assert of_column(value) == want


@pytest.mark.parametrize(
    ("name", "want"),
    [("typer", "MIT"), ("httpx", "BSD-3-Clause"), ("numpy", "BSD-3-Clause"), ("accelerate", "Apache-2.0"), ("rich", "MIT")],
)
def test_installed_packages_are_what_they_are(name, want):
    assert of_distribution(metadata.distribution(name))[0].startswith(want)
