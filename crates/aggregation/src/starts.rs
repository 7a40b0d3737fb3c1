//! Rounding a time column down to the start of its piece or of its bucket, inside plans.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampNanosecondType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use highwater_core::schema::time_data_type;
use highwater_core::{TimeRange, Timestamp};

use crate::pieces::Pieces;

/// What a time is rounded down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grid {
    /// The piece that holds it.
    Piece,
    /// The bucket that holds it.
    Bucket,
}

/// `start_of(time)`: Timestamp(ns) to Timestamp(ns), NULL to NULL.
#[derive(Debug, PartialEq, Eq)]
struct StartOf {
    pieces: Pieces,
    grid: Grid,
    signature: Signature,
}

impl Hash for StartOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pieces.bucket().hash(state);
        (self.grid == Grid::Piece).hash(state);
    }
}

/// `time`, rounded down to the start of its piece or bucket.
pub(crate) fn start_expr(pieces: Pieces, grid: Grid, time: Expr) -> Expr {
    let signature = Signature::exact(vec![time_data_type()], Volatility::Immutable);
    ScalarUDF::from(StartOf { pieces, grid, signature }).call(vec![time])
}

impl StartOf {
    fn range_of(&self, at: Timestamp) -> TimeRange {
        match self.grid {
            Grid::Piece => self.pieces.piece_of(at),
            Grid::Bucket => self.pieces.bucket_of(at),
        }
    }

    /// Neighbouring rows mostly share a piece, so the last one is tried first.
    fn starts(&self, times: &TimestampNanosecondArray) -> TimestampNanosecondArray {
        let mut last = TimeRange::new(Timestamp::EPOCH, Timestamp::EPOCH);
        let starts = times.values().iter().map(|&nanos| {
            let at = Timestamp::from_nanos(nanos);
            if !last.contains(at) {
                last = self.range_of(at);
            }
            last.start.as_nanos()
        });
        TimestampNanosecondArray::new(starts.collect(), times.nulls().cloned())
    }
}

impl ScalarUDFImpl for StartOf {
    fn name(&self) -> &str {
        match self.grid {
            Grid::Piece => "piece_start",
            Grid::Bucket => "bucket_start",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(time_data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), time_data_type(), nullable)))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = ColumnarValue::values_to_arrays(&call.args)?;
        let times = times[0].as_primitive_opt::<TimestampNanosecondType>().ok_or_else(|| {
            DataFusionError::Internal(format!("{} takes nanosecond timestamps", self.name()))
        })?;
        Ok(ColumnarValue::Array(Arc::new(self.starts(times)) as ArrayRef))
    }
}
