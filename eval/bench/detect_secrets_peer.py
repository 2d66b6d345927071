"""detect-secrets as it comes, to be compared with.

In:  a file on disk, under its name: what it looks for depends on the suffix
Out: every place of every value that it reports

Its Python API with the default plugins and filters. That verifies nothing; its command line does, over the network, and is
never called. It tells no column and, of equal values, one line; so each value is masked wherever it stands in the file, which
is the best that a caller can do with it. A value is taken as told: of a PEM block that is the `BEGIN` line's text, of a
GitHub token its first three letters.
"""

from __future__ import annotations

from pathlib import Path

from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings

from core.findings import Finding
from core.manifest import versions_of
from eval.bench.masking import Case, Masked, System, everywhere, merged, replaced


def values(file: Path) -> set[str]:
    """The secret values that are reported for a file, under whatever settings hold."""
    secrets = SecretsCollection()
    secrets.scan_file(str(file))
    return {secret.secret_value for found in secrets.data.values() for secret in found if secret.secret_value}


def find(case: Case) -> list[Finding]:
    """Every place of every reported value."""
    return merged(place for value in values(case.file) for place in everywhere(case.text, value, "secret", "detect-secrets"))


def mask(case: Case) -> Masked:
    """The text with placeholders that its own filter for templates knows."""
    return replaced(case.text, find(case), "<{}_{}>".format)


def system() -> System:
    """The peer as the comparison runs it."""
    return System(f"detect-secrets {versions_of(['detect-secrets'])['detect-secrets']}", default_settings, find, mask)
