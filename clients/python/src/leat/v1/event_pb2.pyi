from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_BOOL: _ClassVar[Kind]
    KIND_INT: _ClassVar[Kind]
    KIND_UINT: _ClassVar[Kind]
    KIND_DECIMAL: _ClassVar[Kind]
    KIND_FLOAT: _ClassVar[Kind]
    KIND_TEXT: _ClassVar[Kind]
    KIND_BYTES: _ClassVar[Kind]
    KIND_BITS: _ClassVar[Kind]
    KIND_JSON: _ClassVar[Kind]
    KIND_DATE: _ClassVar[Kind]
    KIND_TIME: _ClassVar[Kind]
    KIND_DATETIME: _ClassVar[Kind]
    KIND_TIMESTAMP: _ClassVar[Kind]
    KIND_ARRAY: _ClassVar[Kind]
    KIND_VECTOR: _ClassVar[Kind]

class Op(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OP_UNSPECIFIED: _ClassVar[Op]
    OP_INSERT: _ClassVar[Op]
    OP_UPDATE: _ClassVar[Op]
    OP_DELETE: _ClassVar[Op]
    OP_SNAPSHOT: _ClassVar[Op]
    OP_TRUNCATE: _ClassVar[Op]
    OP_SCHEMA: _ClassVar[Op]
    OP_MESSAGE: _ClassVar[Op]
KIND_UNSPECIFIED: Kind
KIND_BOOL: Kind
KIND_INT: Kind
KIND_UINT: Kind
KIND_DECIMAL: Kind
KIND_FLOAT: Kind
KIND_TEXT: Kind
KIND_BYTES: Kind
KIND_BITS: Kind
KIND_JSON: Kind
KIND_DATE: Kind
KIND_TIME: Kind
KIND_DATETIME: Kind
KIND_TIMESTAMP: Kind
KIND_ARRAY: Kind
KIND_VECTOR: Kind
OP_UNSPECIFIED: Op
OP_INSERT: Op
OP_UPDATE: Op
OP_DELETE: Op
OP_SNAPSHOT: Op
OP_TRUNCATE: Op
OP_SCHEMA: Op
OP_MESSAGE: Op

class Column(_message.Message):
    __slots__ = ("name", "kind", "type", "bits", "nullable", "elem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    NULLABLE_FIELD_NUMBER: _ClassVar[int]
    ELEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Kind
    type: str
    bits: int
    nullable: bool
    elem: Kind
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., type: _Optional[str] = ..., bits: _Optional[int] = ..., nullable: bool = ..., elem: _Optional[_Union[Kind, str]] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("id", "version", "schema", "name", "subject", "columns", "identity", "routing")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    id: int
    version: int
    schema: str
    name: str
    subject: str
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    identity: _containers.RepeatedScalarFieldContainer[str]
    routing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., version: _Optional[int] = ..., schema: _Optional[str] = ..., name: _Optional[str] = ..., subject: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., identity: _Optional[_Iterable[str]] = ..., routing: _Optional[_Iterable[str]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("null", "absent", "boolean", "integer", "unsigned", "float64", "float32", "decimal", "text", "blob", "bits", "json", "date_days", "time_micros", "datetime_micros", "timestamp_micros", "array", "vector")
    NULL_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_FIELD_NUMBER: _ClassVar[int]
    FLOAT64_FIELD_NUMBER: _ClassVar[int]
    FLOAT32_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    DATE_DAYS_FIELD_NUMBER: _ClassVar[int]
    TIME_MICROS_FIELD_NUMBER: _ClassVar[int]
    DATETIME_MICROS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MICROS_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    null: bool
    absent: bool
    boolean: bool
    integer: int
    unsigned: int
    float64: float
    float32: float
    decimal: str
    text: str
    blob: bytes
    bits: str
    json: str
    date_days: int
    time_micros: int
    datetime_micros: int
    timestamp_micros: int
    array: Array
    vector: Vector
    def __init__(self, null: bool = ..., absent: bool = ..., boolean: bool = ..., integer: _Optional[int] = ..., unsigned: _Optional[int] = ..., float64: _Optional[float] = ..., float32: _Optional[float] = ..., decimal: _Optional[str] = ..., text: _Optional[str] = ..., blob: _Optional[bytes] = ..., bits: _Optional[str] = ..., json: _Optional[str] = ..., date_days: _Optional[int] = ..., time_micros: _Optional[int] = ..., datetime_micros: _Optional[int] = ..., timestamp_micros: _Optional[int] = ..., array: _Optional[_Union[Array, _Mapping]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Tx(_message.Message):
    __slots__ = ("id", "seq", "last")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    id: str
    seq: int
    last: bool
    def __init__(self, id: _Optional[str] = ..., seq: _Optional[int] = ..., last: bool = ...) -> None: ...

class Other(_message.Message):
    __slots__ = ("offset", "key", "partition_key")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    offset: int
    key: _containers.RepeatedCompositeFieldContainer[Value]
    partition_key: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, offset: _Optional[int] = ..., key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., partition_key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class SchemaChange(_message.Message):
    __slots__ = ("columns", "statement", "rewrites")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    REWRITES_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    statement: str
    rewrites: bool
    def __init__(self, columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., statement: _Optional[str] = ..., rewrites: bool = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("prefix", "content")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    content: bytes
    def __init__(self, prefix: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("offset", "op", "table", "table_version", "key", "partition_key", "before", "after", "tx", "time_micros", "position", "key_change", "schema_change", "message", "replay")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TABLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TX_FIELD_NUMBER: _ClassVar[int]
    TIME_MICROS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    KEY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_CHANGE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    offset: int
    op: Op
    table: int
    table_version: int
    key: _containers.RepeatedCompositeFieldContainer[Value]
    partition_key: _containers.RepeatedCompositeFieldContainer[Value]
    before: Row
    after: Row
    tx: Tx
    time_micros: int
    position: str
    key_change: Other
    schema_change: SchemaChange
    message: Message
    replay: str
    def __init__(self, offset: _Optional[int] = ..., op: _Optional[_Union[Op, str]] = ..., table: _Optional[int] = ..., table_version: _Optional[int] = ..., key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., partition_key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., before: _Optional[_Union[Row, _Mapping]] = ..., after: _Optional[_Union[Row, _Mapping]] = ..., tx: _Optional[_Union[Tx, _Mapping]] = ..., time_micros: _Optional[int] = ..., position: _Optional[str] = ..., key_change: _Optional[_Union[Other, _Mapping]] = ..., schema_change: _Optional[_Union[SchemaChange, _Mapping]] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., replay: _Optional[str] = ...) -> None: ...
