"""A dataset in; a run, a merged model, traces and reports out."""

import logging

# bitsandbytes, which PEFT imports wherever it is installed, looks for a kernel on the hub and warns that none
# is there: nothing here would use it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
