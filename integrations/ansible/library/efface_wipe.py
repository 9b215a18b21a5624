#!/usr/bin/python
"""Ansible: wipes a block device with efface, and returns its certificate."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import uuid

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: efface_wipe
short_description: Wipe a block device, and prove it
description: Runs efface wipe on the host. In check mode it runs efface plan, which writes nothing.
options:
  device: {description: "A path, serial:… or wwn:…", type: str, required: true}
  method: {description: "As efface wipe --method", type: str, default: zero}
  verify: {description: "As efface wipe --verify", type: str, default: standard}
  expect_serial: {description: "Only a disk with this serial number", type: str}
  expect_size: {description: "Only a disk of exactly this size", type: str}
  certificate_dir: {description: "Keep the certificate on the host, in this folder; it is made", type: path}
  sign_key: {description: "As efface wipe --sign-key, a file on the host", type: path}
  ledger: {description: "As efface wipe --ledger, a folder on the host", type: path}
  details: {description: "As efface wipe --details, a file on the host", type: path}
  binary: {description: "Where efface is", type: str, default: efface}
"""

EXAMPLES = r"""
- name: Wipe the data disks
  efface_wipe:
    device: "serial:{{ item }}"
    method: shred
    certificate_dir: /var/lib/efface/certificates
  loop: "{{ retired_serials }}"
  register: wiped
"""

RETURN = r"""
certificate:
  description: The record of the wipe; docs/certificates.md says what is in it.
  returned: whenever efface kept one, of wipes that were refused or failed too
  type: dict
certificate_file:
  description: Where it lies on the host.
  returned: with certificate_dir, whenever efface kept one
  type: str
"""

ARGUMENTS = {
    "device": {"type": "str", "required": True},
    "method": {"type": "str", "default": "zero"},
    "verify": {"type": "str", "default": "standard"},
    "expect_serial": {"type": "str"},
    "expect_size": {"type": "str"},
    "certificate_dir": {"type": "path"},
    "sign_key": {"type": "path"},
    "ledger": {"type": "path"},
    "details": {"type": "path"},
    "binary": {"type": "str", "default": "efface"},
}

# Usage, refused, not supported, busy: with these nothing was written.
NOTHING_WRITTEN = (2, 3, 4, 7)


def given(module: AnsibleModule, *names: str) -> list[str]:
    """Parameters as options of the same name; those that were left out are none."""
    words = []
    for name in names:
        if module.params[name] is not None:
            words += [f"--{name.replace('_', '-')}", module.params[name]]
    return words


def efface(module: AnsibleModule, command: str, *options: str) -> tuple[int, str, str]:
    binary = module.get_bin_path(module.params["binary"], required=True)
    how = given(module, "method", "verify", "expect_serial", "expect_size")
    return module.run_command([binary, command, *how, *options, "--", module.params["device"]])


def reason(err: str) -> str:
    """The message of efface: device, reason and remedy."""
    said = [line.removeprefix("efface: ") for line in err.splitlines() if line.startswith("efface: ")]
    return " ".join(said) or err.strip()


def check(module: AnsibleModule) -> None:
    """What would be done, and whether the certificate could be kept; nothing is written."""
    if module.params["certificate_dir"]:
        refuse_unwritable(module, module.params["certificate_dir"])
    code, out, err = efface(module, "plan", "--json")
    if code != 0:
        module.fail_json(msg=reason(err), rc=code, changed=False)
    module.exit_json(changed=True, msg=f"{module.params['device']} would be wiped", plan=json.loads(out))


def refuse_unwritable(module: AnsibleModule, folder: str) -> None:
    """Of a folder that is still to be made, the nearest one above it counts."""
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        module.fail_json(msg=f"certificate_dir {folder} cannot be written to: {there}", changed=False)


def wipe(module: AnsibleModule, folder: str) -> None:
    """Its certificate is written to the folder by efface itself, which tries it before the device."""
    name = re.sub("[^A-Za-z0-9._-]", "_", os.path.basename(module.params["device"]))
    file = os.path.join(folder, f"efface-{name}-{uuid.uuid4().hex[:8]}.json")
    evidence = ["--certificate-to", file, *given(module, "sign_key", "ledger", "details")]
    code, _, err = efface(module, "wipe", "--yes", "--quiet", *evidence)
    changed = code not in NOTHING_WRITTEN
    said = [reason(err)] if code != 0 else []
    result = {}
    try:
        result = kept(file)
        if module.params["certificate_dir"]:
            result["certificate_file"] = file
    except (OSError, ValueError, KeyError) as error:
        if changed:
            said.append(f"There is no certificate: {error}")
    if said:
        module.fail_json(msg=" ".join(said), rc=code, changed=changed, **result)
    module.exit_json(changed=changed, msg=result["certificate"]["claim"], **result)


def kept(file: str) -> dict:
    with open(file, encoding="utf-8") as stream:
        record = json.load(stream)
    if "payload" in record:
        # A signed one is an envelope (docs/certificates.md).
        record = json.loads(base64.b64decode(record["payload"]))
    return {"certificate": record, "diff": diff(record)}


def diff(record: dict) -> dict[str, str]:
    """What was on the device, and what can be said of it now."""
    found = [each["kind"] for each in (record.get("findings") or {}).get("signatures", [])]
    held = ", ".join(found) or "nothing that is known by its signature"
    return {"before": f"it held {held}\n", "after": f"{record['claim']}\n"}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    if module.check_mode:
        check(module)
    folder = module.params["certificate_dir"]
    if folder is None:
        with tempfile.TemporaryDirectory() as folder:
            wipe(module, folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        module.fail_json(msg=f"certificate_dir {folder} cannot be made: {error}", changed=False)
    wipe(module, folder)


if __name__ == "__main__":
    main()
