//! What the messages of an ONNX file cost to decode; see [`crate::wire`].

use super::proto::{
    AttributeProto, Dimension, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::wire::Field::{Message, Numbers};
use crate::wire::{Field, Kind};

const fn kind<T>(fields: &'static [(u32, Field)]) -> Kind {
    Kind { bytes: size_of::<T>(), op: false, fields }
}

pub(crate) static MODEL: Kind =
    kind::<ModelProto>(&[(7, Message(&GRAPH)), (8, Message(&OPSET)), (14, Message(&ENTRY)), (25, Message(&FUNCTION))]);
static OPSET: Kind = kind::<OperatorSetIdProto>(&[]);
static ENTRY: Kind = kind::<StringStringEntryProto>(&[]);
static FUNCTION: Kind = kind::<FunctionProto>(&[
    (7, Message(&NODE)),
    (9, Message(&OPSET)),
    (11, Message(&ATTRIBUTE)),
    (12, Message(&VALUE_INFO)),
]);
static GRAPH: Kind = kind::<GraphProto>(&[
    (1, Message(&NODE)),
    (5, Message(&TENSOR)),
    (11, Message(&VALUE_INFO)),
    (12, Message(&VALUE_INFO)),
    (13, Message(&VALUE_INFO)),
    (15, Message(&SPARSE)),
]);
static SPARSE: Kind = kind::<SparseTensorProto>(&[(1, Message(&TENSOR)), (2, Message(&TENSOR)), (3, Numbers)]);
static NODE: Kind = Kind { op: true, ..kind::<NodeProto>(&[(5, Message(&ATTRIBUTE)), (9, Message(&ENTRY))]) };
static ATTRIBUTE: Kind = kind::<AttributeProto>(&[
    (5, Message(&TENSOR)),
    (6, Message(&GRAPH)),
    (7, Numbers),
    (8, Numbers),
    (10, Message(&TENSOR)),
    (11, Message(&GRAPH)),
]);
static TENSOR: Kind =
    kind::<TensorProto>(&[(1, Numbers), (5, Numbers), (7, Numbers), (11, Numbers), (13, Message(&ENTRY))]);
static VALUE_INFO: Kind = kind::<ValueInfoProto>(&[(2, Message(&TYPE))]);
static TYPE: Kind = kind::<TypeProto>(&[(1, Message(&TENSOR_TYPE))]);
static TENSOR_TYPE: Kind = kind::<TensorTypeProto>(&[(2, Message(&SHAPE))]);
static SHAPE: Kind = kind::<TensorShapeProto>(&[(1, Message(&DIMENSION))]);
static DIMENSION: Kind = kind::<Dimension>(&[]);
