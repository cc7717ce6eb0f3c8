"""Calls to a node."""

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

# Codes after which nobody knows whether the node took what it was sent.
_UNCERTAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)

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
        info = error_details_pb2.ErrorInfo()
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    detail.Unpack(info)
        return Refused(error.code(), error.details(), info.reason, dict(info.metadata))

    @property
    def is_uncertain(self) -> bool:
        """Whether nobody can tell if the node took what it was sent."""
        return not self.reason and self.code in _UNCERTAIN


class Client:
    """A connection to one node, for one chain."""

    def __init__(self, target: str, genesis_hash: str = "", timeout: float = 10.0):
        """`target` is host:port. `genesis_hash` pins the chain; without it, whatever the node follows is believed."""
        self.timeout = timeout
        channel = grpc.insecure_channel(target)
        self._chain = chain_service_pb2_grpc.ChainServiceStub(channel)
        self._accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self._transactions = transaction_service_pb2_grpc.TransactionServiceStub(channel)
        self._blocks = block_service_pb2_grpc.BlockServiceStub(channel)
        self.info = self._call(self._chain.GetChainInfo, chain_service_pb2.GetChainInfoRequest())
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
        transaction = sign(key, self.genesis_hash, body)
        tx_id = transaction_id(self.genesis_hash, body)
        while True:
            try:
                self._call(
                    self._transactions.SubmitTransaction,
                    transaction_service_pb2.SubmitTransactionRequest(transaction=transaction),
                )
                break
            except Refused as refused:
                if not refused.is_uncertain:
                    raise
                time.sleep(0.2)
        return self.wait(tx_id, transaction_pb2.TransactionBody.FromString(body).expire_time.seconds)

    def wait(self, tx_id: str, expires: int = 0):
        """The record of a transaction once it is final or has expired, however long that takes and however often the node
        is lost meanwhile. `expires`, in Unix seconds, where it is known: a node that has looked past it and does not know
        the transaction is not waited for any longer."""
        request = transaction_service_pb2.WaitTransactionRequest(tx_id=tx_id, timeout=Duration(seconds=10))
        settled = (transaction_pb2.TRANSACTION_STATE_FINALIZED, transaction_pb2.TRANSACTION_STATE_EXPIRED)
        while True:
            try:
                answer = self._call(self._transactions.WaitTransaction, request, timeout=20.0)
            except Refused as refused:
                if not refused.is_uncertain:
                    raise
                time.sleep(0.2)
                continue
            if answer.transaction.state in settled:
                return answer.transaction
            if expires and answer.block_time.seconds > expires and answer.transaction.state == _UNKNOWN:
                raise Refused(
                    grpc.StatusCode.NOT_FOUND,
                    f"{tx_id} is not known at height {answer.height}, past its expiry: it ran before what this node keeps, or never",
                    "TRANSACTION_NOT_FOUND",
                )

    def transactions(self, account: str = "", from_height: int = 0):
        """Final transactions, each once and in order, from a height (0: the next block) on, for ever. A stream that breaks
        is taken up again where it was."""
        # Of a block that comes in several messages, a stream that is taken up inside it tells the beginning again.
        last = (0, 0)
        while True:
            request = transaction_service_pb2.StreamTransactionsRequest(account=account, from_height=from_height)
            try:
                for message in self._transactions.StreamTransactions(request):
                    for record in message.transactions:
                        place = (record.receipt.height, record.receipt.index + 1)
                        if place > last:
                            last = place
                            yield record
                    from_height = message.height + 1
            except grpc.RpcError as error:
                self._resume_after(error)

    def blocks(self, from_height: int = 0):
        """Final blocks, gapless, as `transactions`."""
        while True:
            request = block_service_pb2.StreamBlocksRequest(from_height=from_height)
            try:
                for message in self._blocks.StreamBlocks(request):
                    if message.HasField("block"):
                        yield message.block
                    from_height = message.height + 1
            except grpc.RpcError as error:
                self._resume_after(error)

    def _call(self, method, request, timeout: float = 0.0):
        try:
            return method(request, timeout=timeout or self.timeout)
        except grpc.RpcError as error:
            raise Refused.of(error) from None

    @staticmethod
    def _resume_after(error: grpc.RpcError):
        refused = Refused.of(error)
        if not refused.is_uncertain and refused.reason not in ("SLOW_CONSUMER", "NOT_ACCEPTING"):
            raise refused from None
        time.sleep(0.2)
