"""Run as the service's user, in cinder's own environment: the real driver, as cinder-volume loads it.

Reads a list of [method, volume] from stdin and calls the driver with each, or does what `asked` says; a last
line says what went wrong.
"""

import json
import sys
import threading
import time

# As the service itself: in some releases it replaces the threads.
import cinder.cmd.volume  # noqa: F401
from cinder import context, exception, objects, rpc

objects.register_all()

from cinder.db import api as db  # noqa: E402
from cinder.volume import configuration, manager  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from oslo_utils import importutils  # noqa: E402

from efface_openstack import cinder as ours  # noqa: E402
from efface_openstack import worker  # noqa: E402

CONF = cfg.CONF
logging.register_options(CONF)
CONF(["--config-file", "/etc/cinder/cinder.conf"], project="cinder")
logging.setup(CONF, "cinder")
rpc.init(CONF)
# A minute is long for a test.
ours.PROGRESS_SECONDS = 1
ours.LEFT_BEHIND_SECONDS = 1
ours.BUSY_SECONDS = 5
worker.INTERVAL_SECONDS = 1
worker.RETRY_SECONDS = 1
admin = context.get_admin_context()


def load():
    backend = configuration.Configuration(manager.volume_backend_opts, config_group="lvm")
    driver = importutils.import_object(
        backend.volume_driver, configuration=backend, db=db, host="here@lvm", is_vol_db_empty=True
    )
    driver.do_setup(admin)
    driver.check_for_setup_error()
    return driver


def thing(method, fields):
    """A volume or a snapshot as the manager hands it to the driver."""
    if "snapshot" not in method:
        fields = {"_name_id": None, "source_volid": None, "snapshot_id": None, **fields}
        fields = {
            "attach_status": "detached",
            "status": "available",
            "terminated_at": None,
            "migration_status": None,
            **fields,
        }
        return objects.Volume(admin, **{"encryption_key_id": None, **fields})
    return objects.Snapshot(admin, **fields)


def asked(driver, method, fields):
    """What is not done with a volume."""
    if method == "stay":
        # As long as the test lets it.
        time.sleep(600)
    elif method == "stats":
        [pool] = driver.get_volume_stats(refresh=True)["pools"]
        print(", ".join(f"{name}: {pool[name]}" for name in pool if name.startswith("efface_")))
    elif method == "at_once":
        # In this order, each in a thread as cinder's workers are.
        deletes = [
            threading.Thread(target=driver.delete_volume, args=[thing("delete_volume", each)])
            for each in fields
        ]
        for each in deletes:
            each.start()
            time.sleep(1)
        for each in deletes:
            each.join()
    elif method == "manage":
        driver.manage_existing_get_size(None, fields)
    else:
        return False
    return True


def main():
    driver = load()
    for method, fields in json.load(sys.stdin):
        if asked(driver, method, fields):
            continue
        # Neither can be made without device-mapper: a plain volume stands in.
        if "snapshot" in method:
            driver.vg.lv_is_snapshot = lambda name: True
        if fields.pop("thin", False):
            driver.configuration.lvm_type = "thin"
        getattr(driver, method)(thing(method, fields))


try:
    main()
except exception.CinderException as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
