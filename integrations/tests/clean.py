"""In the agent's environment: runs one clean step as the agent does, and prints its report to the conductor.

Reads {"step": …, "node": …, "clean_version": …} from stdin. Runs sealed alone: the stock agent would erase
every disk that it sees. EFFACE_TEST_SYS is another /sys for efface's manager.
"""

import json
import os
import sys
from pathlib import Path

if os.environ.get("EFFACE_APART") != "sealed":
    sys.exit("clean.py: not apart from the system, nothing is run")

from ironic_python_agent import config, hardware  # noqa: F401
from ironic_python_agent.extensions import clean
from oslo_config import cfg
from oslo_log import log

if sysfs := os.environ.get("EFFACE_TEST_SYS"):
    from efface_openstack import nvme

    nvme.SYS = Path(sysfs)

log.register_options(cfg.CONF)
cfg.CONF([])
cfg.CONF.set_override("disk_wait_attempts", 0)
log.setup(cfg.CONF, "ironic-python-agent")

asked = json.load(sys.stdin)
extension = clean.CleanExtension()
if asked["step"] is None:
    steps = extension.get_clean_steps(node=asked["node"], ports=[])
    print(json.dumps(steps.serialize()))
    sys.exit()
result = extension.execute_clean_step(
    step=asked["step"], node=asked["node"], ports=[], clean_version=asked.get("clean_version")
)
answer = result.join().serialize()
error = answer["command_error"]
answer["command_error"] = error.serialize() if hasattr(error, "serialize") else error
print(json.dumps(answer))
