//! Small tensors in answers.

use crate::wire::{Decode, Describe, Errors, Schemas, Step, wire_enum, wire_struct};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A tensor of up to three axes: `{"tensorType": "tensor_1d", "value": [..]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "tensorType", content = "value")]
pub enum TensorND {
    /// A scalar.
    #[serde(rename = "tensor_0d")]
    Tensor0D(f64),
    /// A list.
    #[serde(rename = "tensor_1d")]
    Tensor1D(Vec<f64>),
    /// A list of rows.
    #[serde(rename = "tensor_2d")]
    Tensor2D(Vec<Vec<f64>>),
    /// A list of matrices.
    #[serde(rename = "tensor_3d")]
    Tensor3D(Vec<Vec<Vec<f64>>>),
}

wire_enum! {
    /// How many axes a tensor has.
    pub enum TensorType {
        Zero = "tensor_0d",
        One = "tensor_1d",
        Two = "tensor_2d",
        Three = "tensor_3d",
    }
}

impl Decode for TensorND {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let object = crate::wire::decode_object(value, errors)?;
        let tensor_type: TensorType = errors.field(object, "tensor_type", None)?;
        let Some(value) = object.get("value") else {
            return errors.at(Step::Key("value".into()), |e| e.add("value_error.missing", "field required"));
        };
        errors.at(Step::Key("value".into()), |errors| match tensor_type {
            TensorType::Zero => f64::decode(value, errors).map(Self::Tensor0D),
            TensorType::One => Vec::decode(value, errors).map(Self::Tensor1D),
            TensorType::Two => Vec::decode(value, errors).map(Self::Tensor2D),
            TensorType::Three => Vec::decode(value, errors).map(Self::Tensor3D),
        })
    }
}

impl<'de> Deserialize<'de> for TensorND {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::wire::decode_for_serde(deserializer)
    }
}

// The interface names each number of axes; these say how each looks in the OpenAPI document.
wire_struct! {
    /// A scalar.
    pub struct Tensor0D {
        pub tensor_type: TensorType = TensorType::Zero,
        pub value: f64,
    }
}
wire_struct! {
    /// A list.
    pub struct Tensor1D {
        pub tensor_type: TensorType = TensorType::One,
        pub value: Vec<f64>,
    }
}
wire_struct! {
    /// A list of rows.
    pub struct Tensor2D {
        pub tensor_type: TensorType = TensorType::Two,
        pub value: Vec<Vec<f64>>,
    }
}
wire_struct! {
    /// A list of matrices.
    pub struct Tensor3D {
        pub tensor_type: TensorType = TensorType::Three,
        pub value: Vec<Vec<Vec<f64>>>,
    }
}

impl Describe for TensorND {
    fn describe(schemas: &mut Schemas) -> Value {
        let any_of = [
            Tensor0D::describe(schemas),
            Tensor1D::describe(schemas),
            Tensor2D::describe(schemas),
            Tensor3D::describe(schemas),
        ];
        serde_json::json!({ "anyOf": any_of })
    }
}
