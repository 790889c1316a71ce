"""Validate an RO-Crate without a network: run by the interpreter of the environment that has roc-validator.

The JSON-LD context, which the validator would fetch, is the one that the package rocrate ships. Prints the profile that
the crate was validated against and what fails, as JSON.
"""

import json
import sys
from pathlib import Path

import requests
import rocrate
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def answer(_self: HttpRequester, url: str, **_options: object) -> requests.Response:
    """Return the context where it is asked for; nothing else can be reached."""
    found = requests.Response()
    found.status_code, found.url = (200, url) if url == CONTEXT else (404, url)
    found._content = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
    found.headers["Content-Type"] = "application/ld+json"
    return found


HttpRequester.get = answer

settings = ValidationSettings(
    rocrate_uri=sys.argv[1],
    profile_identifier="ro-crate-1.1",
    requirement_severity=Severity[sys.argv[2]],
    abort_on_first=False,
)
result = services.validate(settings)
issues = sorted({f"{issue.severity.name}: {issue.message}" for issue in result.get_issues()})
print(json.dumps({"passed": result.passed(), "issues": issues}))
