//! The ops that are written, by their names in the dialect `aicode`, and since when the dialect has them.

macro_rules! ops {
    ($( $name:ident = $text:literal, $since:literal; )*) => {
        $( pub const $name: &str = $text; )*

        /// The version of the dialect, a date, that first had an op; `None` of an op that is not written here.
        pub fn since(name: &str) -> Option<i64> {
            match name {
                $( $text => Some($since), )*
                _ => None,
            }
        }
    };
}

ops! {
    ASSET = "serialization.asset", 20250707;
    GRAPH = "dataflow.graph_v1", 20250707;
    OUTPUT = "dataflow.output_v1", 20250707;
    YIELD = "dataflow.yield_v1", 20250707;
    CONSTANT = "primitive.constant_v1", 20250707;
    ABS = "primitive.abs_v1", 20250814;
    ACOS = "primitive.acos_v1", 20250928;
    ADD = "primitive.add_v1", 20250707;
    AND = "primitive.logical_and_v1", 20251013;
    ASIN = "primitive.asin_v1", 20250928;
    ATAN = "primitive.atan_v1", 20250928;
    ATANH = "primitive.atanh_v1", 20250928;
    BLOCKWISE_SHIFT_SCALE = "primitive.blockwise_shift_scale_v2", 20260202;
    BROADCAST_IN_DIMS = "primitive.broadcast_in_dims_v1", 20250826;
    BROADCAST_SHAPES = "primitive.broadcast_shapes_v1", 20250826;
    BROADCAST_TO = "primitive.broadcast_to_v1", 20250911;
    CAST = "primitive.cast_v1", 20250723;
    CONCAT = "primitive.concat_v1", 20250903;
    CONV_2D = "primitive.conv2d_v1", 20250905;
    CONV_3D = "primitive.conv3d_v1", 20251023;
    COS = "primitive.cos_v1", 20250928;
    COSH = "primitive.cosh_v1", 20250928;
    CREATE_TOKEN = "dataflow.create_token_v1", 20250819;
    DIVIDE = "primitive.divide_v1", 20250717;
    EQUAL = "primitive.equal_v1", 20250923;
    ERF = "primitive.erf_v1", 20250928;
    EXP = "primitive.exp_v1", 20250819;
    FLOOR_DIVIDE = "primitive.floor_divide_v1", 20250928;
    GATHER_ALONG_AXIS = "primitive.gather_along_axis_v1", 20251028;
    GATHER_ND = "primitive.gather_nd_v1", 20250723;
    GELU = "primitive.gelu_v1", 20251024;
    GET_SHAPE = "primitive.get_shape_v2", 20260204;
    GREATER = "primitive.greater_v1", 20251013;
    INVOKE = "dataflow.invoke_v1", 20250909;
    LOG = "primitive.log_v1", 20250928;
    LUT_TO_DENSE = "primitive.lut_to_dense_v1", 20251202;
    MATMUL = "primitive.batch_matmul_v1", 20250723;
    MAXIMUM = "primitive.maximum_v1", 20250928;
    MINIMUM = "primitive.minimum_v1", 20250928;
    MUL = "primitive.mul_v1", 20250717;
    NOT = "primitive.not_v1", 20250923;
    NOT_EQUAL = "primitive.not_equal_v1", 20251003;
    OR = "primitive.logical_or_v1", 20251013;
    PAD = "primitive.pad_v1", 20250924;
    POW = "primitive.pow_v1", 20250928;
    READ_HANDLE = "dataflow.read_handle_v1", 20250819;
    REDUCE = "primitive.reduce_v1", 20250926;
    RESHAPE = "primitive.reshape_v2", 20260204;
    ROUND = "primitive.round_v1", 20251001;
    RSQRT = "primitive.rsqrt_v1", 20250928;
    SIN = "primitive.sin_v1", 20250928;
    SINH = "primitive.sinh_v1", 20250928;
    SLICE = "primitive.slice_v1", 20250922;
    SQRT = "primitive.sqrt_v1", 20250717;
    SUB = "primitive.sub_v1", 20250717;
    TAN = "primitive.tan_v1", 20250928;
    TANH = "primitive.tanh_v1", 20250928;
    TRANSPOSE = "primitive.transpose_v1", 20250811;
    WHERE = "primitive.where_v1", 20251023;
    WRITE_HANDLE = "dataflow.write_handle_v1", 20250819;
    XOR = "primitive.logical_xor_v1", 20251013;
    BROADCASTING_ADD = "broadcasting_add_v1", 20250827;
    BROADCASTING_AND = "broadcasting_logical_and_v1", 20251013;
    BROADCASTING_DIVIDE = "broadcasting_divide_v1", 20250827;
    BROADCASTING_EQUAL = "broadcasting_equal_v1", 20251013;
    BROADCASTING_FLOOR_DIVIDE = "broadcasting_floor_divide_v1", 20250930;
    BROADCASTING_GREATER = "broadcasting_greater_v1", 20251013;
    BROADCASTING_MAXIMUM = "broadcasting_maximum_v1", 20250930;
    BROADCASTING_MINIMUM = "broadcasting_minimum_v1", 20250930;
    BROADCASTING_MUL = "broadcasting_mul_v1", 20250827;
    BROADCASTING_NOT_EQUAL = "broadcasting_not_equal_v1", 20251013;
    BROADCASTING_OR = "broadcasting_logical_or_v1", 20251013;
    BROADCASTING_POW = "broadcasting_pow_v1", 20250930;
    BROADCASTING_SUB = "broadcasting_sub_v1", 20250827;
    BROADCASTING_XOR = "broadcasting_logical_xor_v1", 20251013;
    REDUCE_MAX = "reduce_max_v1", 20251023;
    REDUCE_MEAN = "reduce_mean_v1", 20260317;
    REDUCE_MIN = "reduce_min_v1", 20251023;
    REDUCE_PRODUCT = "reduce_product_v1", 20250926;
    REDUCE_SUM = "reduce_sum_v1", 20250926;
    RELU = "relu_v1", 20260204;
    SIGMOID = "sigmoid_v1", 20260204;
    SILU = "silu_v1", 20260204;
    SOFTMAX = "softmax_v1", 20260204;
}
