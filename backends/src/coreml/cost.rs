//! What the messages of a Core ML model cost to decode; see [`crate::wire`].

use super::proto::{
    Argument, ArrayFeatureType, Binding, BlobFileValue, Block, Dimension, FeatureDescription, FeatureType, Function,
    FunctionDescription, ImmediateValue, Metadata, Model, ModelDescription, NamedValueType, Operation, Program,
    RepeatedBools, RepeatedBytes, RepeatedDoubles, RepeatedFloats, RepeatedInts, RepeatedLongInts, RepeatedStrings,
    StateFeatureType, StateType, TensorType, TensorValue, Value, ValueType, dimension,
};
use crate::wire::Field::{Map, Message, Numbers, Strings};
use crate::wire::{Field, Kind};

const fn kind<T>(fields: &'static [(u32, Field)]) -> Kind {
    Kind { bytes: size_of::<T>(), op: false, fields }
}

pub(crate) static MODEL: Kind = kind::<Model>(&[(2, Message(&DESCRIPTION)), (502, Message(&PROGRAM))]);
static DESCRIPTION: Kind = kind::<ModelDescription>(&[
    (1, Message(&FEATURE)),
    (10, Message(&FEATURE)),
    (13, Message(&FEATURE)),
    (20, Message(&FUNCTION_DESCRIPTION)),
    (100, Message(&METADATA)),
]);
static METADATA: Kind = kind::<Metadata>(&[(100, Strings)]);
static FUNCTION_DESCRIPTION: Kind =
    kind::<FunctionDescription>(&[(2, Message(&FEATURE)), (3, Message(&FEATURE)), (6, Message(&FEATURE))]);
static FEATURE: Kind = kind::<FeatureDescription>(&[(3, Message(&FEATURE_TYPE))]);
static FEATURE_TYPE: Kind = kind::<FeatureType>(&[(5, Message(&ARRAY)), (8, Message(&STATE_FEATURE))]);
static STATE_FEATURE: Kind = kind::<StateFeatureType>(&[(1, Message(&ARRAY))]);
static ARRAY: Kind = kind::<ArrayFeatureType>(&[(1, Numbers)]);

static PROGRAM: Kind = kind::<Program>(&[(2, Map(&FUNCTION)), (4, Map(&VALUE))]);
static FUNCTION: Kind = kind::<Function>(&[(1, Message(&NAMED)), (3, Map(&BLOCK)), (4, Map(&VALUE))]);
static BLOCK: Kind = kind::<Block>(&[(1, Message(&NAMED)), (3, Message(&OPERATION)), (4, Map(&VALUE))]);
static OPERATION: Kind = Kind {
    op: true,
    ..kind::<Operation>(&[(2, Map(&ARGUMENT)), (3, Message(&NAMED)), (4, Message(&BLOCK)), (5, Map(&VALUE))])
};
static ARGUMENT: Kind = kind::<Argument>(&[(1, Message(&BINDING))]);
static BINDING: Kind = kind::<Binding>(&[(2, Message(&VALUE))]);
static NAMED: Kind = kind::<NamedValueType>(&[(2, Message(&TYPE))]);
static TYPE: Kind = kind::<ValueType>(&[(1, Message(&TENSOR_TYPE)), (5, Message(&STATE))]);
static STATE: Kind = kind::<StateType>(&[(1, Message(&TYPE))]);
static TENSOR_TYPE: Kind = kind::<TensorType>(&[(3, Message(&DIMENSION)), (4, Map(&VALUE))]);
static DIMENSION: Kind = kind::<Dimension>(&[(1, Message(&CONSTANT)), (2, Message(&UNKNOWN))]);
static CONSTANT: Kind = kind::<dimension::ConstantDimension>(&[]);
static UNKNOWN: Kind = kind::<dimension::UnknownDimension>(&[]);
static VALUE: Kind = kind::<Value>(&[(2, Message(&TYPE)), (3, Message(&IMMEDIATE)), (5, Message(&BLOB))]);
static IMMEDIATE: Kind = kind::<ImmediateValue>(&[(1, Message(&TENSOR))]);
static BLOB: Kind = kind::<BlobFileValue>(&[]);
static TENSOR: Kind = kind::<TensorValue>(&[
    (1, Message(&FLOATS)),
    (2, Message(&INTS)),
    (3, Message(&BOOLS)),
    (4, Message(&STRINGS)),
    (5, Message(&LONG_INTS)),
    (6, Message(&DOUBLES)),
    (7, Message(&BYTES)),
]);
static FLOATS: Kind = kind::<RepeatedFloats>(&[]);
static INTS: Kind = kind::<RepeatedInts>(&[(1, Numbers)]);
static BOOLS: Kind = kind::<RepeatedBools>(&[]);
static STRINGS: Kind = kind::<RepeatedStrings>(&[]);
static LONG_INTS: Kind = kind::<RepeatedLongInts>(&[(1, Numbers)]);
static DOUBLES: Kind = kind::<RepeatedDoubles>(&[]);
static BYTES: Kind = kind::<RepeatedBytes>(&[]);
