"""One process per agent: PTY relay, emulator, attach, and the arbiter that types messages."""
