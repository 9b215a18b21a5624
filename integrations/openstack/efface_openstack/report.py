"""Who hears of a volume that is kept: the tenant by a message, the administrator by a notification.

The texts of messages are fixed in cinder, and none says that a volume was not deleted: the nearest is sent.
The reason is in the notification and in the log.
"""

from __future__ import annotations

from typing import Any

from cinder import context, objects, rpc
from cinder.message import api
from cinder.message.message_field import Action, Detail, Resource
from cinder.volume import volume_utils
from oslo_log import log as logging

from .deferred import Deleted

LOG = logging.getLogger(__name__)


def kept(volume: Any, reason: str) -> None:
    """Of a snapshot too. What cannot be sent is logged: the volume is kept in any case."""
    try:
        if isinstance(volume, Deleted):
            _notify_of_deleted(volume, reason)
            return
        _send_message(volume)
        _notify(volume, reason)
    except Exception:
        LOG.exception("No message or notification says that %s is kept", volume["id"])


def _send_message(volume: Any) -> None:
    of_project = context.get_admin_context()
    of_project.project_id = volume["project_id"]
    message: tuple[Any, Any, Any] = (Action.UNMANAGE_VOLUME, Resource.VOLUME, Detail.UNKNOWN_ERROR)
    if isinstance(volume, objects.Snapshot):
        message = (Action.SNAPSHOT_DELETE, Resource.VOLUME_SNAPSHOT, Detail.SNAPSHOT_DELETE_ERROR)
    action, resource, detail = message
    api.API().create(of_project, action, resource, resource_uuid=volume["id"], detail=detail)


def _notify(volume: Any, reason: str) -> None:
    extra = {"extra_usage_info": {"reason": reason}}
    if isinstance(volume, objects.Snapshot):
        volume_utils.notify_about_snapshot_usage(context.get_admin_context(), volume, "delete.error", **extra)
    else:
        volume_utils.notify_about_volume_usage(context.get_admin_context(), volume, "delete.error", **extra)


def _notify_of_deleted(volume: Deleted, reason: str) -> None:
    """Its tenant has no such volume any more."""
    payload = {"volume_id": volume.id, "tenant_id": volume.project_id, "name": volume.name, "reason": reason}
    rpc.get_notifier("volume").error(context.get_admin_context(), "volume.delete.error", payload)
