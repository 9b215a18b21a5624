#!/usr/bin/python
"""Ansible: wipes a block device with efface, and returns its certificate."""

from __future__ import annotations

import json
import os
import tempfile

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
  certificate_dir: {description: "Keep the certificate on the host too, in this folder", type: path}
  binary: {description: "Where efface is", type: str, default: efface}
"""

EXAMPLES = r"""
- name: Wipe the data disks
  efface_wipe:
    device: "serial:{{ item }}"
    method: shred
  loop: "{{ retired_serials }}"
  register: wiped
"""

RETURN = r"""
certificate:
  description: The record of the wipe; docs/certificates.md says what is in it.
  returned: when the device was wiped
  type: dict
"""

ARGUMENTS = {
    "device": {"type": "str", "required": True},
    "method": {"type": "str", "default": "zero"},
    "verify": {"type": "str", "default": "standard"},
    "expect_serial": {"type": "str"},
    "expect_size": {"type": "str"},
    "certificate_dir": {"type": "path"},
    "binary": {"type": "str", "default": "efface"},
}


def options(parameters: dict) -> list[str]:
    words = ["--method", parameters["method"], "--verify", parameters["verify"]]
    for name in ("expect_serial", "expect_size"):
        if parameters[name] is not None:
            words += [f"--{name.replace('_', '-')}", parameters[name]]
    return words


def run(module: AnsibleModule, words: list[str]) -> str:
    code, out, err = module.run_command([module.get_bin_path(module.params["binary"], required=True), *words])
    if code != 0:
        said = [line.removeprefix("efface: ") for line in err.splitlines() if line.startswith("efface: ")]
        # Codes 2, 3, 4 and 7: nothing was written.
        changed = code not in (2, 3, 4, 7)
        module.fail_json(msg=" ".join(said) or err.strip(), rc=code, changed=changed)
    return out


def diff(record: dict) -> dict[str, str]:
    """What was on the device, and what can be said of it now."""
    found = [each["kind"] for each in (record.get("findings") or {}).get("signatures", [])]
    held = ", ".join(found) or "nothing that is known by its signature"
    return {"before": f"it held {held}\n", "after": f"{record['claim']}\n"}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    device, how = module.params["device"], options(module.params)
    if module.check_mode:
        plan = json.loads(run(module, ["plan", device, *how, "--json"]))
        module.exit_json(changed=True, msg=f"{device} would be wiped", plan=plan)
    with tempfile.TemporaryDirectory() as folder:
        certificate = os.path.join(folder, "certificate.json")
        run(module, ["wipe", device, *how, "--yes", "--quiet", "--certificate-to", certificate])
        with open(certificate, encoding="utf-8") as file:
            record = json.load(file)
        if module.params["certificate_dir"]:
            name = f"efface-{os.path.basename(device)}-{record['id'][:8]}.json"
            module.atomic_move(certificate, os.path.join(module.params["certificate_dir"], name))
    module.exit_json(changed=True, msg=record["claim"], certificate=record, diff=diff(record))


if __name__ == "__main__":
    main()
