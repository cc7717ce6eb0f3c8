"""Calls to a node."""

import math
import threading
import time

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from .keys import Key
from .signing import sign, transaction_id
from tally.v1 import (
    account_service_pb2, account_service_pb2_grpc, block_service_pb2, block_service_pb2_grpc, chain_service_pb2,
    chain_service_pb2_grpc, transaction_pb2, transaction_service_pb2, transaction_service_pb2_grpc,
)

# The domain of the node's own reasons. What is in the way, like a proxy, may have others.
_DOMAIN = "tally.v1"

# No reason, and reasons with which a node says that it cannot tell what became of the call either.
_UNCERTAIN = ("", "DEADLINE_EXCEEDED", "INTERNAL")

# Reasons for which a node refuses a call now and may take the same one later.
_FOR_NOW = (
    "MEMPOOL_FULL", "NODE_SYNCING", "NOT_ACCEPTING", "REQUEST_INCOMPLETE", "SENDER_LIMIT", "SLOW_CONSUMER",
    "TOO_MANY_STREAMS",
)

_CHANNEL = (
    # A connection on which nothing has come for 10 s is pinged while a call is open on it, and is replaced if it does not
    # answer within 5: the server may be gone without a word. By itself, gRPC gives an answer a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # gRPC's other pings measure the bandwidth. On a slow line their answers queue behind data for longer than that.
    ("grpc.http2.bdp_probe", 0),
    # A block comes in one message of up to 32 MiB. gRPC takes 4 unless it is told.
    ("grpc.max_receive_message_length", 33 * 1024 * 1024),
)

# Seconds without a message after which a stream is lost: the contract promises one at least every 10.
_SILENCE = 15.0

_PAUSE = 0.2

_UNKNOWN = transaction_pb2.TRANSACTION_STATE_UNKNOWN


class Refused(Exception):
    """The node said no. `reason` is one of tally.v1.ErrorReason without its prefix; docs/errors.md explains each. Empty:
    nobody said anything, and the code is all there is."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "", metadata: dict = {}):
        self.code, self.message, self.reason, self.metadata = code, message, reason, metadata
        super().__init__(f"{reason or code.name}: {message}")

    @staticmethod
    def of(error: grpc.RpcError) -> "Refused":
        """What an error of a call says."""
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.ErrorInfo()
                    if detail.Unpack(info) and info.domain == _DOMAIN:
                        return Refused(error.code(), error.details(), info.reason, dict(info.metadata))
        return Refused(error.code(), error.details())

    @property
    def is_uncertain(self) -> bool:
        """Whether nobody can tell if the node took what it was sent. Only the node's reason makes it certain, whatever the
        code."""
        return self.reason in _UNCERTAIN

    @property
    def is_passing(self) -> bool:
        """Whether the same call may be answered later."""
        return self.is_uncertain or self.reason in _FOR_NOW


class Client:
    """A connection to one node, for one chain."""

    def __init__(self, target: str, genesis_hash: str = "", timeout: float = 10.0):
        """`target` is host:port. `genesis_hash` pins the chain; without it, whatever the node follows is believed."""
        self.timeout = timeout
        channel = grpc.insecure_channel(target, _CHANNEL)
        self._chain = chain_service_pb2_grpc.ChainServiceStub(channel)
        self._accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self._transactions = transaction_service_pb2_grpc.TransactionServiceStub(channel)
        self._blocks = block_service_pb2_grpc.BlockServiceStub(channel)
        self.info = self._chain_info()
        if genesis_hash and self.info.genesis_hash != genesis_hash:
            raise ValueError(f"the node follows the chain {self.info.genesis_hash}, not {genesis_hash}")
        self.genesis_hash = bytes.fromhex(self.info.genesis_hash)

    def account(self, address: str):
        """The account, or Refused with ACCOUNT_NOT_FOUND."""
        return self._call(self._accounts.GetAccount, account_service_pb2.GetAccountRequest(address=address)).account

    def send(self, key: Key, recipient: str, amount: int, memo: str = ""):
        """Pays base units to an account that exists; returns its final record."""
        transfer = transaction_pb2.Transfer(recipient=recipient, amount=amount)
        return self.execute(key, [transaction_pb2.Operation(transfer=transfer)], memo)

    def create_account(self, key: Key, address: str, opening_balance: int, memo: str = ""):
        """Opens an account; returns its final record."""
        create = transaction_pb2.CreateAccount(new_account=address, opening_balance=opening_balance)
        return self.execute(key, [transaction_pb2.Operation(create_account=create)], memo)

    def execute(self, key: Key, operations, memo: str = ""):
        """Signs, submits, waits until final. The node fills in nonce, expiry and fee; what comes back is checked
        before it is signed."""
        wanted = transaction_pb2.TransactionBody(sender=key.address, memo=memo, operations=operations)
        request = transaction_service_pb2.SimulateTransactionRequest(body=wanted)
        simulated = self._call(self._transactions.SimulateTransaction, request)
        if simulated.HasField("failure"):
            # In a block it would cost its fee and do nothing.
            failure = simulated.failure
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, failure.message, failure.reason, dict(failure.metadata))
        body = simulated.body
        filled = transaction_pb2.TransactionBody.FromString(body.SerializeToString())
        for field in ("nonce", "expire_time", "max_fee", "chain_id"):
            filled.ClearField(field)
        fee = self.info.params.base_fee * len(operations)
        if filled != wanted or body.chain_id != self.info.chain_id or body.max_fee > fee:
            raise ValueError("the node filled in something else than it was asked to")
        return self.submit_and_wait(key, body.SerializeToString())

    def submit_and_wait(self, key: Key, body: bytes):
        """Submits the same bytes until a node has taken them: a second copy changes nothing. Then waits until the
        transaction is final or has expired."""
        request = transaction_service_pb2.SubmitTransactionRequest(transaction=sign(key, self.genesis_hash, body))
        expires = transaction_pb2.TransactionBody.FromString(body).expire_time.seconds
        is_first = True
        while True:
            try:
                self._call(self._transactions.SubmitTransaction, request)
                break
            except Refused as refused:
                if is_first and not refused.is_uncertain:
                    raise
                # The copy before may be on its way, whatever is said of this one. So nothing is refused any more, and
                # once copies cannot help, waiting tells.
                is_first = False
                if not refused.is_passing or time.time() > expires:
                    break
                time.sleep(_PAUSE)
        return self.wait(transaction_id(self.genesis_hash, body), expires)

    def wait(self, tx_id: str, expires: float = math.inf):
        """The record of a transaction once it is final or has expired, however long that takes and however often the node
        is lost meanwhile. `expires`, in Unix seconds, where it is known: a node that has looked past it and does not know
        the transaction is not waited for any longer."""
        request = transaction_service_pb2.WaitTransactionRequest(tx_id=tx_id, timeout=Duration(seconds=10))
        settled = (transaction_pb2.TRANSACTION_STATE_FINALIZED, transaction_pb2.TRANSACTION_STATE_EXPIRED)
        while True:
            try:
                answer = self._call(self._transactions.WaitTransaction, request, timeout=20.0)
            except Refused as refused:
                if not refused.is_passing:
                    raise
                time.sleep(_PAUSE)
                continue
            if answer.transaction.state in settled:
                return answer.transaction
            if answer.block_time.seconds > expires and answer.transaction.state == _UNKNOWN:
                raise Refused(
                    grpc.StatusCode.NOT_FOUND,
                    f"{tx_id} is not known at height {answer.height}, past its expiry: it ran before what this node keeps, or never",
                    "TRANSACTION_NOT_FOUND",
                )

    def transactions(self, account: str = "", from_height: int = 0):
        """Final transactions, each once and in order, from a height (0: the one after the node's latest at this moment) on,
        for ever. A stream that breaks or falls silent is taken up again where it was."""
        request = transaction_service_pb2.StreamTransactionsRequest(
            account=account, from_height=from_height or self._next_height()
        )
        messages = self._follow(self._transactions.StreamTransactions, request)
        return _each_once(record for message in messages for record in message.transactions)

    def blocks(self, from_height: int = 0):
        """Final blocks, gapless, as `transactions`."""
        request = block_service_pb2.StreamBlocksRequest(from_height=from_height or self._next_height())
        messages = self._follow(self._blocks.StreamBlocks, request)
        return (message.block for message in messages if message.HasField("block"))

    def _follow(self, method, request):
        """The messages of a stream. `request` names a height: 0 would be another one each time it is taken up."""
        while True:
            try:
                for message in _unless_silent(method(request)):
                    yield message
                    request.from_height = message.height + 1
            except grpc.RpcError as error:
                refused = Refused.of(error)
                if not refused.is_passing:
                    raise refused from None
            time.sleep(_PAUSE)

    def _next_height(self) -> int:
        return self._chain_info().latest_height + 1

    def _chain_info(self):
        return self._call(self._chain.GetChainInfo, chain_service_pb2.GetChainInfoRequest())

    def _call(self, method, request, timeout: float = 0.0):
        try:
            return method(request, timeout=timeout or self.timeout)
        except grpc.RpcError as error:
            raise Refused.of(error) from None


def _unless_silent(call):
    """The messages of a stream, which is cancelled when none has come for too long. A reader who does not ask for the next one
    for that long loses it too."""
    came = threading.Event()

    def watch():
        while call.is_active() and came.wait(_SILENCE):
            came.clear()
        call.cancel()

    threading.Thread(target=watch, daemon=True).start()
    try:
        for message in call:
            came.set()
            yield message
    finally:
        call.cancel()
        came.set()


def _each_once(records):
    """Of a block that comes in several messages, a stream that is taken up inside it tells the beginning again."""
    last = (0, 0)
    for record in records:
        place = (record.receipt.height, record.receipt.index + 1)
        if place > last:
            last = place
            yield record
