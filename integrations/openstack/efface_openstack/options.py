"""The driver's options, in a backend's section of cinder.conf."""

from __future__ import annotations

from oslo_config import cfg

from . import command, filters

# Cinder's section for what all backends share (cinder.volume.configuration.SHARED_CONF_GROUP). It is not
# imported: the config generator loads this module without the rest of cinder.
SHARED_GROUP = "backend_defaults"

OPTIONS = [
    cfg.StrOpt(
        "efface_method",
        default="zero",
        choices=["zero", "shred", "random"],
        help="What a volume is overwritten with before it is removed.",
    ),
    cfg.StrOpt(
        "efface_verify",
        default="standard",
        choices=["none", "standard", "high", "full"],
        help="How much is read back; standard says with 99 % confidence that at most 0.1 % differs.",
    ),
    cfg.StrOpt(
        "efface_rate",
        regex=f"^{filters.RATE}$",
        help="Bytes per second for each volume, as in 200MiB/s; replaces efface_yield.",
    ),
    cfg.BoolOpt(
        "efface_yield",
        default=True,
        help="Back off while other tenants use the same disks.",
    ),
    cfg.IntOpt(
        "efface_yield_loss",
        default=10,
        min=1,
        max=50,
        help="Percent of their I/O rate that other tenants may lose by it.",
    ),
    cfg.StrOpt(
        "efface_yield_min",
        regex=f"^{filters.LOWEST}$",
        help="Bytes per second in any case, for all volumes on one disk together, as in 32MiB/s; 0 for none. "
        "By default the lesser of 16MiB/s and 5 percent of the rate that was seen alone.",
    ),
    cfg.IntOpt(
        "efface_slots",
        default=2,
        min=1,
        max=99,
        help="Volumes that are cleared at the same time on this host; the others wait in order.",
    ),
    cfg.BoolOpt(
        "efface_deferred_delete",
        default=False,
        help="A delete renames the volume and ends; later it is cleared and removed, in order.",
    ),
    cfg.IntOpt(
        "efface_delete_workers",
        min=1,
        help="How many deletes may occupy cinder's workers until their volumes are cleared; the volume of a "
        "further one is cleared later, as with efface_deferred_delete. By default all.",
    ),
    cfg.StrOpt(
        "efface_encrypted",
        default="overwrite",
        choices=[
            ("overwrite", "Overwrite all of it, as any other volume."),
            ("destroy_key_then_zero", "Destroy the LUKS header and its keys first, then overwrite."),
            ("destroy_key", "Only destroy the keys, where no clone, snapshot or backup has them too."),
        ],
        help="What is done with an encrypted volume. Without a LUKS header it is overwritten.",
    ),
    cfg.StrOpt(
        "efface_thin",
        default="auto",
        choices=[
            ("auto", "discard where the pool zeroes what it gives out, or is full; else overwrite."),
            ("none", "Nothing, as the stock driver."),
            ("discard", "Discard the volume before it is removed, and check that it reads as zeroes."),
            ("overwrite", "Overwrite what is mapped of it by efface_method, and discard it then."),
        ],
        help="What is done with a thin volume, of which the stock driver clears nothing.",
    ),
    cfg.BoolOpt(
        "efface_skip_zeroes",
        default=False,
        help="Read a thick volume first, and overwrite only what is not zero.",
    ),
    cfg.StrOpt(
        "efface_zero_with",
        default="write",
        choices=[
            ("write", "Send zeroes to the device."),
            ("offload", "The write-zeroes command, which a device may complete without writing its media."),
        ],
        help="How a thick volume gets its zeroes, with efface_method = zero.",
    ),
    cfg.BoolOpt(
        "efface_accept_unseen",
        default=False,
        help="Clear volumes even if there are processes, namespaces or tables that efface cannot read.",
    ),
    cfg.StrOpt(
        "efface_copies",
        default="refuse",
        choices=[
            ("refuse", "A volume above a layer that keeps another copy, as a write-back cache, is kept."),
            ("accept", "It is cleared and removed; what still holds a copy is logged and recorded."),
        ],
        help="What is done where a layer below the volumes keeps another copy of what they hold.",
    ),
    cfg.BoolOpt(
        "efface_sign",
        default=False,
        help=f"Sign certificates and the ledger with {command.SIGNING_KEY}, which root alone may read.",
    ),
    cfg.BoolOpt(
        "efface_ledger",
        default=False,
        help=f"Add each record to the chain of records in {command.LEDGER}.",
    ),
    cfg.BoolOpt(
        "efface_metrics",
        default=False,
        help=f"Keep textfiles for node_exporter in {command.METRICS}: one for each volume, and one for what "
        "runs and what waits.",
    ),
    cfg.StrOpt("efface_binary", default="efface", help="The program, as the rootwrap filters name it."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For oslo-config-generator."""
    return [(SHARED_GROUP, OPTIONS)]
