"""Transformer Debugger: why does a language model say one token rather than another?

    import tdb

    with tdb.Server() as server:                       # the small model inside the program
        print(server.model_info())

`Server` starts the program that this package carries; `Client` asks one that runs elsewhere. Both have one method for
each route of the interface, typed.
"""

from . import client as types
from .client import Client
from .server import Server, program
from .transport import Refused

__all__ = ["Client", "Refused", "Server", "program", "types"]
