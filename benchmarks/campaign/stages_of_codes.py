"""The stage of each code of the catalogue, for sources whose findings do not tell one."""

STAGE: dict[str, str] = {
    **dict.fromkeys(("DAT101", "DAT103", "DAT104", "DAT105", "DAT106", "DAT107", "DAT108", "DAT109", "DAT110"), "files"),
    **dict.fromkeys(("DAT111", "DAT112"), "files"),
    **dict.fromkeys(("DAT102", "DAT113"), "pair"),
    **dict.fromkeys(("PRE201", "PRE202", "PRE203", "PRE204", "PRE205", "PRE208"), "read_val"),
    **dict.fromkeys(("PRE206", "PRE207", "PRE209"), "read_train"),
    **dict.fromkeys(
        ("MOD301", "MOD302", "MOD306", "MOD307", "MOD308", "MOD309", "MOD311", "MOD312", "EVA501", "EVA502"), "forward"
    ),
    **dict.fromkeys(("MOD303", "MOD304", "MOD305", "MOD310"), "update"),
    **dict.fromkeys((f"TRN{n}" for n in (401, 402, 405, 406, 407, 409, 410, 411, 413, 414, 415)), "update"),
    **dict.fromkeys(("TRN403", "TRN404", "EVA506"), "choose"),
    **dict.fromkeys(("TRN408", "TRN412", "TRN416"), "draw"),
    "TRN417": "loss",
    "EVA505": "loss",
    **dict.fromkeys(("EVA503", "EVA504", "EVA507", "EVA508", "EVA509", "EVA510", "EVA511"), "measure"),
}
