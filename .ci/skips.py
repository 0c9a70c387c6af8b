"""Fails where a test was skipped for a reason that is not on this short list."""

import sys
import xml.etree.ElementTree as ET

ALLOWED = (
    "chromium is not installed",
    "the CIFAR-10 table is not beside the repository",
    "no folder is closed to root",
    "azurite-blob is not installed",
    # scikit-learn's own checks of inputs that need packages which are not installed
    "SCIPY_ARRAY_API is not set",
    "pandas is not installed",
)

skips = [
    (case.get("classname"), case.get("name"), skip.get("message", ""))
    for case in ET.parse(sys.argv[1]).iter("testcase")
    for skip in case.iter("skipped")
]
unknown = [s for s in skips if not any(reason in s[2] for reason in ALLOWED)]
for place, name, reason in skips:
    print(f"skipped: {place}.{name}: {reason}")
if unknown:
    sys.exit(f"{len(unknown)} skips for reasons that are not on the list in .ci/skips.py")
