"""What stands between a client and its node, and loses things: for trying out what the client does then."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc


class Relay:
    """Passes bytes between a port of its own and `target` (host:port)."""

    def __init__(self, target: str):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._open = []
        self._swallowed = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends every connection there is. New ones are taken."""
        ended, self._open = self._open, []
        for end in ended:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def swallow(self):
        """Keeps every connection there is open, and passes nothing on it any more, not even its end. New ones are taken."""
        self._swallowed.update(self._open)

    def _accept(self):
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(self._target)
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one, other):
        try:
            while data := one.recv(65536):
                if one not in self._swallowed:
                    other.sendall(data)
            if one not in self._swallowed:
                other.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Proxy(grpc.GenericRpcHandler):
    """Passes calls between a port of its own and `target`. Its connections live, whatever becomes of the calls."""

    def __init__(self, target: str):
        # By method, the errors that its next calls get instead of the node's answer: code and trailing metadata.
        self.lost = {}
        # How many of the next streams tell nothing.
        self.silent = 0
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(ThreadPoolExecutor(), [self])
        self.address = "127.0.0.1:%d" % self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details):
        """Bytes of any method, as they come."""
        method = details.method
        if "/Stream" in method:
            return grpc.unary_stream_rpc_method_handler(lambda *call: self._stream(method, *call))
        return grpc.unary_unary_rpc_method_handler(lambda *call: self._answer(method, *call))

    def _answer(self, method, request, context):
        answer = self._channel.unary_unary(method)(request)
        if lost := self.lost.get(method.split("/")[-1]):
            code, metadata = lost.pop(0)
            context.set_trailing_metadata(metadata)
            context.abort(code, "lost")
        return answer

    def _stream(self, method, request, context):
        is_silent, self.silent = self.silent > 0, self.silent - 1
        call = self._channel.unary_stream(method)(request)
        context.add_callback(call.cancel)
        for message in call:
            if not is_silent:
                yield message
