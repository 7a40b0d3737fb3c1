//! Numbering groups: rows with equal keys get the same number, counted from 0 as they appear.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, DictionaryArray, Int32Array, StringArray, make_array,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{Result, internal_err};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

/// A tag of a dictionary that has not been looked up yet.
const UNKNOWN: u64 = u64::MAX;

/// The groups met so far.
#[derive(Debug)]
pub(super) struct Keys {
    columns: Vec<KeyColumn>,
    /// Per group: a code per column, then one bit per column that is NULL.
    codes: Vec<u64>,
    groups: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

/// So many texts are kept from one set of groups to the next.
const MANY_TEXTS: usize = 64 * 1024;

/// One column of the keys: how its values become codes of 64 bits, and back.
#[derive(Debug)]
enum KeyColumn {
    /// Values of 64 bits, which are their own codes.
    Number(DataType),
    /// Texts, numbered as they appear.
    Text { numbers: Numbers, seen: SeenDictionary, is_dictionary: bool },
}

/// Distinct texts and their numbers.
#[derive(Debug, Default)]
struct Numbers {
    by_text: HashMap<Arc<str>, u64>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

/// The dictionary of the last batch, and the numbers of its entries as far as they were asked for.
#[derive(Debug, Default)]
struct SeenDictionary {
    values: Option<ArrayRef>,
    numbers: Vec<u64>,
}

impl Keys {
    /// Whether keys of these types can be numbered.
    pub(super) fn support<'a>(mut types: impl ExactSizeIterator<Item = &'a DataType>) -> bool {
        types.len() < u64::BITS as usize && types.all(|one| KeyColumn::of(one).is_some())
    }

    /// Keys of these types, no group yet.
    ///
    /// # Errors
    /// An internal error if a type is not one that is [supported](Keys::support).
    pub(super) fn of<'a>(types: impl Iterator<Item = &'a DataType>) -> Result<Self> {
        let columns: Option<Vec<KeyColumn>> = types.map(KeyColumn::of).collect();
        let Some(columns) = columns else { return internal_err!("keys that cannot be numbered") };
        let (codes, groups, hasher) = Default::default();
        Ok(Keys { columns, codes, groups, hasher })
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Bytes held, about.
    pub(super) fn size(&self) -> usize {
        let texts = |column: &KeyColumn| match column {
            KeyColumn::Number(_) => 0,
            KeyColumn::Text { numbers, seen, .. } => numbers.bytes + seen.numbers.capacity() * 8,
        };
        self.codes.capacity() * 8
            + self.groups.capacity() * size_of::<usize>()
            + self.columns.iter().map(texts).sum::<usize>()
    }

    /// Forgets the groups, and the texts too if they are many.
    pub(super) fn clear(&mut self) {
        self.codes.clear();
        self.groups.clear();
        for column in &mut self.columns {
            if let KeyColumn::Text { numbers, seen, .. } = column
                && numbers.texts.len() > MANY_TEXTS
            {
                (*numbers, *seen) = Default::default();
            }
        }
    }

    /// Puts the group of every row into `numbers`.
    pub(super) fn number(&mut self, columns: &[ArrayRef], numbers: &mut Vec<usize>) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        numbers.clear();
        let mut coded = Vec::with_capacity(columns.len());
        let mut nulls = vec![0; rows];
        for (at, (column, key)) in columns.iter().zip(&mut self.columns).enumerate() {
            coded.push(key.codes(column));
            if let Some(valid) = column.logical_nulls() {
                let is_null = valid.iter().map(|valid| u64::from(!valid) << at);
                nulls.iter_mut().zip(is_null).for_each(|(nulls, bit)| *nulls |= bit);
            }
        }
        coded.push(nulls);
        let mut key = vec![0; coded.len()];
        for row in 0..rows {
            let is_same = row > 0 && coded.iter().all(|codes| codes[row] == codes[row - 1]);
            let number = match numbers.last() {
                Some(last) if is_same => *last,
                _ => {
                    key.iter_mut().zip(&coded).for_each(|(code, codes)| *code = codes[row]);
                    self.number_of(&key)
                }
            };
            numbers.push(number);
        }
        Ok(())
    }

    fn number_of(&mut self, key: &[u64]) -> usize {
        let width = key.len();
        let Keys { codes, groups, hasher, .. } = self;
        let key_of = |codes: &[u64], group: usize| -> u64 {
            hasher.hash_one(&codes[group * width..][..width])
        };
        let new = groups.len();
        let found = groups.entry(
            hasher.hash_one(key),
            |group| codes[group * width..][..width] == *key,
            |group| key_of(codes, *group),
        );
        match found {
            hashbrown::hash_table::Entry::Occupied(group) => *group.get(),
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert(new);
                codes.extend_from_slice(key);
                new
            }
        }
    }

    /// The keys of these groups, one array per column.
    ///
    /// # Errors
    /// [`ArrowError`](arrow::error::ArrowError) for codes that are no values, a defect.
    pub(super) fn arrays(&self, groups: Range<usize>) -> Result<Vec<ArrayRef>> {
        let width = self.columns.len() + 1;
        let rows = || groups.clone().map(|group| &self.codes[group * width..][..width]);
        let columns = self.columns.iter().enumerate().map(|(at, column)| {
            let valid: NullBuffer = rows().map(|row| row[width - 1] >> at & 1 == 0).collect();
            let valid = Some(valid).filter(|valid| valid.null_count() > 0);
            column.array(rows().map(|row| row[at]), valid)
        });
        columns.collect()
    }
}

impl KeyColumn {
    fn of(data_type: &DataType) -> Option<Self> {
        let text = |is_dictionary| {
            let (numbers, seen) = Default::default();
            KeyColumn::Text { numbers, seen, is_dictionary }
        };
        match data_type {
            DataType::Int64 | DataType::UInt64 | DataType::Timestamp(_, _) => {
                Some(KeyColumn::Number(data_type.clone()))
            }
            DataType::Utf8 => Some(text(false)),
            DataType::Dictionary(key, value)
                if **key == DataType::Int32 && **value == DataType::Utf8 =>
            {
                Some(text(true))
            }
            _ => None,
        }
    }

    /// The code of every row; 0 for NULL.
    fn codes(&mut self, column: &ArrayRef) -> Vec<u64> {
        let mut codes = match self {
            KeyColumn::Number(_) => {
                let data = column.to_data();
                data.buffer::<u64>(0)[..data.len()].to_vec()
            }
            KeyColumn::Text { numbers, is_dictionary: false, .. } => {
                let texts = column.as_string::<i32>().iter();
                texts.map(|text| text.map_or(0, |text| numbers.of(text))).collect()
            }
            KeyColumn::Text { numbers, seen, is_dictionary: true } => {
                let dictionary = column.as_dictionary::<Int32Type>();
                seen.look_at(dictionary.values());
                let texts = dictionary.values().as_string::<i32>();
                let keys = dictionary.keys().iter();
                let code = |key: Option<i32>| {
                    key.map_or(0, |key| seen.number_of(key as usize, texts, numbers))
                };
                keys.map(code).collect()
            }
        };
        if let Some(valid) = column.logical_nulls() {
            let codes = codes.iter_mut().zip(valid.iter());
            codes.filter(|(_, valid)| !valid).for_each(|(code, _)| *code = 0);
        }
        codes
    }

    fn array(
        &self,
        codes: impl Iterator<Item = u64>,
        valid: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        match self {
            KeyColumn::Number(data_type) => {
                let codes: Vec<u64> = codes.collect();
                let data = ArrayData::builder(data_type.clone())
                    .len(codes.len())
                    .add_buffer(Buffer::from_vec(codes))
                    .nulls(valid);
                Ok(make_array(data.build()?))
            }
            KeyColumn::Text { numbers, is_dictionary, .. } => {
                // A dictionary of the texts of these groups only, however many others there are.
                let mut own: Vec<&Arc<str>> = Vec::new();
                let mut positions: HashMap<u64, i32> = HashMap::new();
                let mut position = |code: u64| {
                    *positions.entry(code).or_insert_with(|| {
                        own.extend(numbers.texts.get(code as usize));
                        own.len().saturating_sub(1) as i32
                    })
                };
                let keys: Vec<i32> = codes.map(&mut position).collect();
                let keys = Int32Array::new(keys.into(), valid);
                let texts = Arc::new(StringArray::from_iter_values(own));
                let array = DictionaryArray::try_new(keys, texts)?;
                if *is_dictionary {
                    return Ok(Arc::new(array));
                }
                Ok(arrow::compute::cast(&array, &DataType::Utf8)?)
            }
        }
    }
}

impl Numbers {
    fn of(&mut self, text: &str) -> u64 {
        if let Some(number) = self.by_text.get(text) {
            return *number;
        }
        let (own, number): (Arc<str>, u64) = (text.into(), self.texts.len() as u64);
        self.bytes += own.len() + 64;
        self.texts.push(Arc::clone(&own));
        self.by_text.insert(own, number);
        number
    }
}

impl SeenDictionary {
    fn look_at(&mut self, values: &ArrayRef) {
        if self.values.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, values)) {
            self.values = Some(Arc::clone(values));
            self.numbers.clear();
            self.numbers.resize(values.len(), UNKNOWN);
        }
    }

    fn number_of(&mut self, key: usize, texts: &StringArray, numbers: &mut Numbers) -> u64 {
        if self.numbers[key] == UNKNOWN {
            self.numbers[key] = numbers.of(texts.value(key));
        }
        self.numbers[key]
    }
}
