"""What the tests' own process must have, so that the programs they start are as in a person's terminal."""

import signal

# Under nohup, or in the background of a script, these are ignored, and so they would be in whatever is started here.
for number, usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
