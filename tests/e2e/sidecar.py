#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sidecar.py PORT MARK ALLOWED...: what a mesh puts in front of every outgoing connection. It takes whatever is redirected to it; where
that may not go, it ends it then. Its own connections carry the mark that the redirect leaves alone."""
import asyncio
import ipaddress
import socket
import struct
import sys

SO_ORIGINAL_DST = 80
TASKS = set()  # the loop itself holds them but weakly
PORT, MARK, ALLOWED = int(sys.argv[1]), int(sys.argv[2]), set(sys.argv[3:])


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def serve(reader, writer):
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    port, address = struct.unpack("!2xH4s8x", raw)[0], str(ipaddress.ip_address(raw[4:8]))
    if address not in ALLOWED:
        writer.close()
        return
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    s.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(s, (address, port))
        there, back = await asyncio.open_connection(sock=s)
        await asyncio.gather(pump(reader, back), pump(there, writer))
        back.close()
    except OSError:
        pass
    writer.close()


def accepted(reader, writer):
    task = asyncio.ensure_future(serve(reader, writer))
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


async def main():
    server = await asyncio.start_server(accepted, "127.0.0.1", PORT, backlog=256)
    await server.serve_forever()


asyncio.run(main())
