"""python-kasa finds a plug that speaks KLAP, with an account, and switches it: the argument is the port of discovery.

Which version it speaks then follows from what the plug announces; the name of its class for that version is printed first.
"""

import asyncio
import sys

from kasa import AuthenticationError, Credentials, Discover

# Nothing listens on the port that would be asked beside it.
Discover.DISCOVERY_PORT, Discover.DISCOVERY_PORT_2 = 1, int(sys.argv[1])


async def find(password):
    account = Credentials("me@example.org", password)
    return await Discover.discover_single("127.0.0.1", discovery_timeout=2, credentials=account)


async def main():
    plug = await find("wrong")
    try:
        await plug.update()
    except AuthenticationError:
        print("refused")
    await plug.disconnect()
    plug = await find("secret")
    await plug.update()
    print(type(plug.protocol._transport).__name__, plug.alias, plug.model, plug.is_on)
    for switch in (plug.turn_on, plug.turn_off, plug.turn_on):
        await switch()
        await plug.update()
        print(plug.is_on)
    await plug.disconnect()


asyncio.run(main())
