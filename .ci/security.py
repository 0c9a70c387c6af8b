"""Fails on what bandit finds in src, and on a known vulnerability of a package of ours."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITES_ONLY = "XML is written here and never parsed"
LOCAL = "local_files_only: a folder of this machine, nothing is downloaded"
# (bandit's test, file below src/nameonly) -> why it is no fault there
EXCEPTIONS = {
    ("B405", "export/cvat.py"): WRITES_ONLY,
    ("B405", "export/label_studio.py"): WRITES_ONLY,
    ("B311", "images.py"): "a sample of images that the seed decides, no secret",
    ("B704", "report/places.py"): "the name is one of our own constants, and no text of a user's",
    ("B104", "review/server.py"): "compared with what the user asked for, never a default",
    ("B615", "tiny/clip_files.py"): LOCAL,
    ("B615", "tiny/diffusion_files.py"): LOCAL,
}


def check_code() -> list[str]:
    """Return what bandit finds beyond the exceptions, and exceptions that nothing needs."""
    command = ["bandit", "-q", "-r", "src", "-c", ".ci/bandit.yaml", "-f", "json"]
    got = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    told = json.loads(got.stdout)
    problems = [f"bandit could not read {error}" for error in told["errors"]]
    used = set()
    for found in told["results"]:
        path = Path(found["filename"]).relative_to("src/nameonly").as_posix()
        used.add((found["test_id"], path))
        if (found["test_id"], path) not in EXCEPTIONS:
            place = f"{found['filename']}:{found['line_number']}"
            problems.append(f"{place}: {found['test_id']} {found['issue_text']}")
    problems += [f"nothing needs the exception {case}" for case in EXCEPTIONS.keys() - used]
    print(f"bandit: {len(told['results'])} findings, {len(problems)} of them no exception")
    return problems


def check_packages() -> list[str]:
    """Return the known vulnerabilities of the packages in constraints.txt."""
    command = ["pip-audit", "-r", "constraints.txt", "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "-f", "json"]
    try:
        got = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        packages = json.loads(got.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        packages = []
    checked = [package for package in packages if "vulns" in package]
    if not checked:
        print("pip-audit: no service of known vulnerabilities answers here, nothing was checked")
    else:
        print(f"pip-audit: {len(checked)} of {len(packages)} packages were checked")
    return [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {flaw['fix_versions']}"
        for package in checked
        for flaw in package["vulns"]
    ]


if problems := check_code() + check_packages():
    sys.exit("\n".join(problems))
