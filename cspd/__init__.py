"""CSP: the agent CLIs that people already run, in one room.

`cspd` is the daemon; its parts are packages by subject (wire, unit, keeper, gateway, control, sidecar).
"""

__version__ = "0.1.0"
