"""python-kasa drives a plug that speaks KLAP: arguments are the version and the ports of discovery and HTTP.

Its own devices of this family always speak the first version; the second is asked for by name.
"""

import asyncio
import sys

from kasa import Credentials, DeviceConfig, Discover
from kasa.protocols import IotProtocol
from kasa.transports import KlapTransportV2

ACCOUNT = Credentials("me@example.org", "secret")


async def first(discovery):
    # Nothing listens on the port that would be asked beside it.
    Discover.DISCOVERY_PORT, Discover.DISCOVERY_PORT_2 = 1, discovery
    plug = await Discover.discover_single("127.0.0.1", discovery_timeout=2, credentials=ACCOUNT)
    await plug.update()
    print(plug.config.connection_type.encryption_type.value, plug.alias, plug.model, plug.is_on)
    for switch in (plug.turn_on, plug.turn_off, plug.turn_on):
        await switch()
        await plug.update()
        print(plug.is_on)
    await plug.disconnect()


async def second(http):
    config = DeviceConfig("127.0.0.1", port_override=http, credentials=ACCOUNT)
    protocol = IotProtocol(transport=KlapTransportV2(config=config))
    for state in (1, 0, 1):
        await protocol.query({"system": {"set_relay_state": {"state": state}}})
        reply = await protocol.query({"system": {"get_sysinfo": {}}})
        print(bool(reply["system"]["get_sysinfo"]["relay_state"]))
    await protocol.close()


version, discovery, http = map(int, sys.argv[1:])
asyncio.run(first(discovery) if version == 1 else second(http))
