import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from leat.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_RETRY: _ClassVar[Verdict]
    VERDICT_FATAL: _ClassVar[Verdict]
    VERDICT_DEFER: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_RETRY: Verdict
VERDICT_FATAL: Verdict
VERDICT_DEFER: Verdict

class PullRequest(_message.Message):
    __slots__ = ("start", "credit", "ack", "nack", "extend")
    START_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    EXTEND_FIELD_NUMBER: _ClassVar[int]
    start: Start
    credit: Credit
    ack: Ack
    nack: Nack
    extend: Extend
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., extend: _Optional[_Union[Extend, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("subscription", "consumer")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    consumer: str
    def __init__(self, subscription: _Optional[str] = ..., consumer: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("events", "bytes")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    events: int
    bytes: int
    def __init__(self, events: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("up_to_lease", "lease", "offsets", "epoch")
    UP_TO_LEASE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    up_to_lease: int
    lease: int
    offsets: _containers.RepeatedScalarFieldContainer[int]
    epoch: int
    def __init__(self, up_to_lease: _Optional[int] = ..., lease: _Optional[int] = ..., offsets: _Optional[_Iterable[int]] = ..., epoch: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("lease", "offset", "verdict", "delay", "reason", "epoch")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    lease: int
    offset: int
    verdict: Verdict
    delay: _duration_pb2.Duration
    reason: str
    epoch: int
    def __init__(self, lease: _Optional[int] = ..., offset: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Extend(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, leases: _Optional[_Iterable[int]] = ...) -> None: ...

class PullResponse(_message.Message):
    __slots__ = ("events", "resolved", "revoked", "refused", "extended")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    events: Events
    resolved: Resolved
    revoked: Revoked
    refused: Refused
    extended: Extended
    def __init__(self, events: _Optional[_Union[Events, _Mapping]] = ..., resolved: _Optional[_Union[Resolved, _Mapping]] = ..., revoked: _Optional[_Union[Revoked, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., extended: _Optional[_Union[Extended, _Mapping]] = ...) -> None: ...

class Events(_message.Message):
    __slots__ = ("events", "lease", "epoch", "deadline", "tables", "source")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    lease: int
    epoch: int
    deadline: _timestamp_pb2.Timestamp
    tables: _containers.RepeatedCompositeFieldContainer[_event_pb2.Table]
    source: str
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ..., lease: _Optional[int] = ..., epoch: _Optional[int] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tables: _Optional[_Iterable[_Union[_event_pb2.Table, _Mapping]]] = ..., source: _Optional[str] = ...) -> None: ...

class Resolved(_message.Message):
    __slots__ = ("offset", "time")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    offset: int
    time: _timestamp_pb2.Timestamp
    def __init__(self, offset: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ("offsets", "reason")
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    reason: str
    def __init__(self, offsets: _Optional[_Iterable[int]] = ..., reason: _Optional[str] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("lease", "offsets", "reason")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease: int
    offsets: _containers.RepeatedScalarFieldContainer[int]
    reason: str
    def __init__(self, lease: _Optional[int] = ..., offsets: _Optional[_Iterable[int]] = ..., reason: _Optional[str] = ...) -> None: ...

class Extended(_message.Message):
    __slots__ = ("leases", "deadline")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    deadline: _timestamp_pb2.Timestamp
    def __init__(self, leases: _Optional[_Iterable[int]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("subscription", "consumer", "max_events", "max_bytes", "wait")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    consumer: str
    max_events: int
    max_bytes: int
    wait: _duration_pb2.Duration
    def __init__(self, subscription: _Optional[str] = ..., consumer: _Optional[str] = ..., max_events: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ("events", "lease")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    events: Events
    lease: str
    def __init__(self, events: _Optional[_Union[Events, _Mapping]] = ..., lease: _Optional[str] = ...) -> None: ...

class AckRequest(_message.Message):
    __slots__ = ("subscription", "lease", "offsets", "all", "nacks")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    NACKS_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    lease: str
    offsets: _containers.RepeatedScalarFieldContainer[int]
    all: bool
    nacks: _containers.RepeatedCompositeFieldContainer[NackItem]
    def __init__(self, subscription: _Optional[str] = ..., lease: _Optional[str] = ..., offsets: _Optional[_Iterable[int]] = ..., all: bool = ..., nacks: _Optional[_Iterable[_Union[NackItem, _Mapping]]] = ...) -> None: ...

class NackItem(_message.Message):
    __slots__ = ("offset", "verdict", "delay", "reason")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    offset: int
    verdict: Verdict
    delay: _duration_pb2.Duration
    reason: str
    def __init__(self, offset: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class AckResponse(_message.Message):
    __slots__ = ("refused",)
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    refused: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, refused: _Optional[_Iterable[int]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("subscription", "leases")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    leases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, subscription: _Optional[str] = ..., leases: _Optional[_Iterable[str]] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("deadline", "refused")
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    deadline: _timestamp_pb2.Timestamp
    refused: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., refused: _Optional[_Iterable[str]] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("subscription", "to", "ranges", "tables", "limit", "max_bytes")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    to: int
    ranges: _containers.RepeatedScalarFieldContainer[int]
    tables: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    max_bytes: int
    def __init__(self, subscription: _Optional[str] = ..., to: _Optional[int] = ..., ranges: _Optional[_Iterable[int]] = ..., tables: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., max_bytes: _Optional[int] = ..., **kwargs) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ("events", "next", "end")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    events: Events
    next: int
    end: bool
    def __init__(self, events: _Optional[_Union[Events, _Mapping]] = ..., next: _Optional[int] = ..., end: bool = ...) -> None: ...
