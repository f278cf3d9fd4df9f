"""Every operation of the network, twice under one contract: native (recorded for C++) and torch (the oracle)."""
