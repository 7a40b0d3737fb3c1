//! Laws that every partial keeps, and the bytes that must never change.

use std::sync::Arc;

use highwater_core::{FieldType, Timestamp};
use proptest::prelude::*;

use super::*;

fn fed<P: Partial, T: Clone>(values: &[T], update: impl Fn(&mut P, T)) -> P {
    let mut partial = P::default();
    values.iter().for_each(|value| update(&mut partial, value.clone()));
    partial
}

fn bytes_of<P: Partial>(partial: &P) -> Vec<u8> {
    let mut bytes = Vec::new();
    partial.encode(&mut bytes);
    bytes
}

fn merged<P: Partial>(a: &P, b: &P) -> P {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

/// Merging is commutative and associative, any split equals the whole, the default is neutral,
/// and bytes come back as what they were.
fn keeps_the_laws<P: Partial, T: Clone>(
    values: &[T],
    cuts: (prop::sample::Index, prop::sample::Index),
    update: impl Fn(&mut P, T) + Copy,
) -> Result<(), TestCaseError> {
    let (a, rest) = values.split_at(cuts.0.index(values.len() + 1));
    let (b, c) = rest.split_at(cuts.1.index(rest.len() + 1));
    let (a, b, c) = (fed::<P, T>(a, update), fed::<P, T>(b, update), fed::<P, T>(c, update));
    let whole = fed::<P, T>(values, update);
    prop_assert_eq!(&merged(&merged(&a, &b), &c), &whole);
    prop_assert_eq!(&merged(&a, &merged(&b, &c)), &whole);
    prop_assert_eq!(&merged(&merged(&c, &a), &b), &whole);
    prop_assert_eq!(&merged(&whole, &P::default()), &whole);
    prop_assert_eq!(whole.is_empty(), values.is_empty());
    for partial in [&a, &b, &c, &whole] {
        let decoded = P::decode(&bytes_of(partial));
        prop_assert_eq!(decoded.as_ref(), Ok(partial));
    }
    prop_assert_eq!(bytes_of(&merged(&merged(&c, &b), &a)), bytes_of(&whole));
    Ok(())
}

fn floats() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![any::<f64>(), -10.0..10.0, Just(-0.0), Just(f64::NAN)], 0..20)
}

fn timed<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<(Timestamp, T)>> {
    prop::collection::vec(((0i64..5).prop_map(Timestamp::from_secs), value), 0..20)
}

type Cuts = (prop::sample::Index, prop::sample::Index);

proptest! {
    #[test]
    fn sums_and_means(
        floats in floats(),
        integers: Vec<i64>,
        unsigned: Vec<u64>,
        cuts: Cuts,
    ) {
        keeps_the_laws(&floats, cuts, ExactSum::update)?;
        keeps_the_laws::<Mean, f64>(&floats, cuts, Mean::update)?;
        keeps_the_laws::<Mean, i64>(&integers, cuts, Mean::update)?;
        keeps_the_laws::<Mean, u64>(&unsigned, cuts, Mean::update)?;
        keeps_the_laws(&integers, cuts, IntegerSum::<i64>::update)?;
        keeps_the_laws(&unsigned, cuts, IntegerSum::<u64>::update)?;
        keeps_the_laws(&integers, cuts, |count: &mut Count, _| count.update())?;
        keeps_the_laws::<Moments, f64>(&floats, cuts, Moments::update)?;
        keeps_the_laws::<Moments, i64>(&integers, cuts, Moments::update)?;
        keeps_the_laws::<Moments, u64>(&unsigned, cuts, Moments::update)?;
    }

    #[test]
    fn extrema(floats in floats(), booleans: Vec<bool>, strings: Vec<String>, cuts: Cuts) {
        keeps_the_laws(&floats, cuts, Min::<f64>::update)?;
        keeps_the_laws(&floats, cuts, Max::<f64>::update)?;
        keeps_the_laws(&booleans, cuts, Min::<bool>::update)?;
        keeps_the_laws(&strings, cuts, |max: &mut Max<String>, text| max.update(&text))?;
    }

    #[test]
    fn sets(
        floats in floats(),
        timed in timed(any::<bool>()),
        integers: Vec<i64>,
        strings in prop::collection::vec("[a-c]{0,2}", 0..20),
        cuts: Cuts,
    ) {
        keeps_the_laws(&floats, cuts, Distinct::<f64>::update)?;
        keeps_the_laws(&integers, cuts, Distinct::<i64>::update)?;
        keeps_the_laws(&timed, cuts, |p: &mut Distinct<bool>, (_, v)| p.update(v))?;
        keeps_the_laws(&timed, cuts, |p: &mut Distinct<Timestamp>, (at, _)| p.update(at))?;
        keeps_the_laws(&strings, cuts, |p: &mut Distinct<String>, v| p.update(&v))?;
        keeps_the_laws(&strings, cuts, |p: &mut ApproxDistinct, v| {
            p.update(<String as Member>::hash(&v));
        })?;
        keeps_the_laws::<Percentiles, f64>(&floats, cuts, Percentiles::update)?;
        keeps_the_laws::<Percentiles, i64>(&integers, cuts, Percentiles::update)?;
        let bounds = Arc::from([-1.0, 0.0, 1e9]);
        keeps_the_laws(&floats, cuts, |p: &mut Histogram, v| p.update(&bounds, v))?;
    }

    #[test]
    fn by_time(
        floats in timed(prop_oneof![-3.0..3.0, Just(f64::NAN), Just(-0.0), Just(0.0)]),
        strings in timed("[a-c]{0,2}"),
        cuts: Cuts,
    ) {
        keeps_the_laws(&floats, cuts, |p: &mut First<f64>, (at, v)| p.update(at, v))?;
        keeps_the_laws(&floats, cuts, |p: &mut Last<f64>, (at, v)| p.update(at, v))?;
        keeps_the_laws(&strings, cuts, |p: &mut Last<String>, (at, v)| p.update(at, &v))?;
        let numbers: Vec<_> = floats.iter().filter(|(_, v)| !v.is_nan()).copied().collect();
        keeps_the_laws(&numbers, cuts, |p: &mut Counter<f64>, (at, v)| p.update(at, v))?;
        keeps_the_laws(&numbers, cuts, |p: &mut TimeWeighted<f64>, (at, v)| p.update(at, v))?;
        let apart: Vec<_> = (0i64..).map(Timestamp::from_secs).zip(numbers).collect();
        keeps_the_laws(&apart, cuts, |p: &mut Counter<f64>, (at, (_, v))| p.update(at, v))?;
    }

    /// The laws but for the order: what is merged in another one is close.
    #[test]
    fn fast_sums(floats in floats(), near in prop::collection::vec(0.0f64..1e6, 0..50), cuts: Cuts) {
        let sum = |values: &[f64]| fed(values, FastSum::update);
        for values in [&floats, &near] {
            let (a, b) = values.split_at(cuts.0.index(values.len() + 1));
            let (a, b, whole) = (sum(a), sum(b), sum(values));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(&merged(&whole, &FastSum::default()), &whole);
            prop_assert_eq!(whole.is_empty(), values.is_empty());
            prop_assert_eq!(FastSum::decode(&bytes_of(&whole)), Ok(whole));
        }
        let (a, rest) = near.split_at(cuts.0.index(near.len() + 1));
        let (b, c) = rest.split_at(cuts.1.index(rest.len() + 1));
        let any = merged(&merged(&sum(c), &sum(a)), &sum(b)).finish();
        let exact = fed(&near, ExactSum::update).finish();
        let is_close = any.zip(exact).is_none_or(|(any, exact)| (any - exact).abs() <= exact * 1e-12);
        prop_assert!(is_close, "{any:?} for {exact:?}");
        prop_assert_eq!(any.is_some(), exact.is_some());
    }

    #[test]
    fn any_bytes_decode_or_do_not(
        first in prop_oneof![any::<u8>(), 0x21u8..0x30],
        second: u8,
        body: Vec<u8>,
    ) {
        let bytes = [vec![first, second], body].concat();
        for bytes in [bytes.as_slice(), &bytes[..1], &[]] {
            decodes_totally::<Count>(bytes)?;
            decodes_totally::<ExactSum>(bytes)?;
            decodes_totally::<FastSum>(bytes)?;
            decodes_totally::<Histogram>(bytes)?;
            decodes_totally::<IntegerSum<i64>>(bytes)?;
            decodes_totally::<IntegerSum<u64>>(bytes)?;
            decodes_totally::<Mean>(bytes)?;
            decodes_totally::<Min<f64>>(bytes)?;
            decodes_totally::<Max<String>>(bytes)?;
            decodes_totally::<First<bool>>(bytes)?;
            decodes_totally::<Last<Timestamp>>(bytes)?;
            decodes_totally::<Moments>(bytes)?;
            decodes_totally::<Distinct<String>>(bytes)?;
            decodes_totally::<Distinct<f64>>(bytes)?;
            decodes_totally::<ApproxDistinct>(bytes)?;
            decodes_totally::<Percentiles>(bytes)?;
            decodes_totally::<Counter<f64>>(bytes)?;
            decodes_totally::<Counter<u64>>(bytes)?;
            decodes_totally::<TimeWeighted<f64>>(bytes)?;
            decodes_totally::<TimeWeighted<i64>>(bytes)?;
        }
    }
}

/// Whatever decodes can be merged and encoded, and comes back as itself.
fn decodes_totally<P: Partial>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(partial) = P::decode(bytes) {
        let doubled = merged(&partial, &partial);
        for partial in [partial, doubled] {
            prop_assert_eq!(P::decode(&bytes_of(&partial)), Ok(partial));
        }
    }
    Ok(())
}

#[test]
fn the_means_answer_survives_the_bytes() {
    let mean: Mean = fed(&[0.1, 0.7, 1e300, -1e300], Mean::update);
    assert_eq!(Mean::decode(&bytes_of(&mean)).unwrap().finish(), mean.finish());
    assert_eq!(mean.finish(), Some(0.19999999999999998));
}

fn hex<P: Partial>(partial: &P) -> String {
    bytes_of(partial).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These bytes are on disks: a release that changes them cannot read what older ones wrote.
#[test]
fn golden_bytes() {
    let floats = |values: &[f64]| hex(&fed(values, ExactSum::update));
    assert_eq!(hex(&fed(&[(); 300], |count: &mut Count, ()| count.update())), "2100ac02");
    assert_eq!(hex(&Count::default()), "210000");
    assert_eq!(floats(&[]), "22f1");
    assert_eq!(floats(&[0.0]), "2201");
    assert_eq!(floats(&[-0.0]), "2221");
    assert_eq!(floats(&[f64::NAN]), "2231");
    assert_eq!(floats(&[f64::INFINITY]), "2241");
    assert_eq!(floats(&[f64::NEG_INFINITY]), "2251");
    assert_eq!(floats(&[10.0, 20.0, 60.0]), "2201022d");
    assert_eq!(floats(&[0.1]), "22016dcdcccccccccc0c");
    assert_eq!(floats(&[-0.1]), "22016d333333333333f3");
    assert_eq!(
        floats(&[1e300, -1e-300]),
        "2211000000004e190e7ac00124d5ffffffffffff1f0000000070d6012020f2905f0000000000"
    );
    assert_eq!(hex(&fed(&[i64::MAX, 1], IntegerSum::<i64>::update)), "2202000000000000008000");
    assert_eq!(hex(&fed(&[-1], IntegerSum::<i64>::update)), "2202ff");
    assert_eq!(hex(&fed(&[300u64], IntegerSum::<u64>::update)), "22032c01");
    assert_eq!(hex(&fed(&[1.5, 2.0], Mean::update)), "2300020107");
    assert_eq!(hex(&Mean::default()), "23f0");
}

/// As [`golden_bytes`].
#[test]
fn golden_bytes_of_spreads_and_sets() {
    let moments = |values: &[f64]| hex(&fed::<Moments, f64>(values, Moments::update));
    assert_eq!(moments(&[]), "28f0");
    assert_eq!(moments(&[1.5, 2.0]), "2800020201070319");
    assert_eq!(moments(&[-0.0]), "28000100");
    assert_eq!(moments(&[1.0, f64::INFINITY]), "284002");
    assert_eq!(hex(&fed::<Moments, i64>(&[3, -3], Moments::update)), "280002000209");
    assert_eq!(
        moments(&[1e-300, 1e300]),
        "2830022400000000b2e6f1853f01dc2a0000000000001f0000000070d6012020f2905f00000000000\
         1f114c24779ae83aa02574c9540cb0100003f000040dc1fd857f840f6ef97427139eb08"
    );
    let hash = |text: &str| <String as Member>::hash(text);
    assert_eq!(hash(""), 0xd1fba762150c532c);
    assert_eq!(<u64 as Member>::hash(1), 0x1e9f734161d62dd9);
    assert_eq!(hex(&Distinct::<f64>::default()), "29f1");
    assert_eq!(hex(&fed(&[3, 1, 3, 300], Distinct::<i64>::update)), "29020102a902");
    assert_eq!(
        hex(&fed(&["b", "ab"], |p: &mut Distinct<String>, t| p.update(t))),
        "29050261620162"
    );
    assert_eq!(hex(&fed(&[true], Distinct::<bool>::update)), "290401");
    assert_eq!(hex(&ApproxDistinct::default()), "2af0");
    assert_eq!(
        hex(&fed(&["b", "a"], |p: &mut ApproxDistinct, t| p.update(hash(t)))),
        "2a0013189bb8d2487440ce60fb0226cf228b"
    );
    let percentiles = |values: &[f64]| hex(&fed::<Percentiles, f64>(values, Percentiles::update));
    assert_eq!(percentiles(&[]), "2bf0");
    assert_eq!(
        percentiles(&[1.0, 2.5, -1.0, 1.0]),
        "2b00000000000000f0bf000000000000044081ff070181ff07025001"
    );
}

/// As [`golden_bytes`].
#[test]
fn golden_bytes_of_ends() {
    let at = Timestamp::from_secs(1_704_067_200);
    assert_eq!(hex(&fed(&[2.5], Min::<f64>::update)), "24010000000000000440");
    assert_eq!(hex(&fed(&[-2], Max::<i64>::update)), "2502feffffffffffffff");
    assert_eq!(hex(&fed(&[2u64], Max::<u64>::update)), "25030200000000000000");
    assert_eq!(hex(&fed(&[true], Min::<bool>::update)), "240401");
    assert_eq!(hex(&fed(&["hi"], |p: &mut Max<String>, t| p.update(t))), "25056869");
    assert_eq!(hex(&fed(&[at], Min::<Timestamp>::update)), "2406000065011710a617");
    assert_eq!(hex(&Min::<f64>::default()), "24f1");
    assert_eq!(
        hex(&fed(&[2.5], |p: &mut First<f64>, v| p.update(at, v))),
        "2601000065011710a6170000000000000440"
    );
    assert_eq!(
        hex(&fed(&["b"], |p: &mut Last<String>, v| p.update(at, v))),
        "2705000065011710a61762"
    );
}

/// As [`golden_bytes`].
#[test]
fn golden_bytes_of_fast_sums_and_histograms() {
    let sum = |values: &[f64]| hex(&fed(values, FastSum::update));
    assert_eq!(sum(&[]), "2ef1");
    assert_eq!(sum(&[1.5, 1.0]), "2e01020000000000000440");
    assert_eq!(sum(&[-0.0]), "2e01010000000000000080");
    assert_eq!(sum(&[f64::NAN; 300]), "2e01ac02000000000000f87f");
    let bounds: Arc<[f64]> = Arc::from([1.0, 2.5]);
    let counted: Histogram = fed(&[0.0, 1.0, 2.0, 7.0], |p, v| Histogram::update(p, &bounds, v));
    assert_eq!(hex(&counted), "2f0002000000000000f03f0000000000000440010201");
    assert_eq!(hex(&Histogram::default()), "2ff0");
    let other: Histogram = fed(&[0.0], |p, v| Histogram::update(p, &Arc::from([0.5]), v));
    assert_eq!(hex(&merged(&counted, &other)), "2f10");
}

/// As [`golden_bytes`].
#[test]
fn golden_bytes_of_counters() {
    let at = Timestamp::from_secs(1_704_067_200);
    let later = Timestamp::from_secs(1_704_067_201);
    let readings = [(later, 1u64), (at, 3)];
    let counter = fed(&readings, |p: &mut Counter<u64>, (at, v)| p.update(at, v));
    let mut complete = Vec::new();
    counter.encode_complete(&mut complete);
    assert_eq!(
        hex(&counter),
        "2c03000065011710a617030000000000000000\
         00caff3c1710a617010000000000000000"
    );
    assert_eq!(
        hex(&Counter::<u64>::decode(&complete).unwrap()),
        "2c03000065011710a617030000000000000080\
         94ebdc03010000000000000004220100\
         03"
    );
    assert_eq!(hex(&fed(&[1, 1], |p: &mut Counter<i64>, v| p.update(at, v))), "2c12");
    assert_eq!(hex(&Counter::<f64>::default()), "2cf1");
    let weighted = fed(&readings, |p: &mut TimeWeighted<u64>, (at, v)| p.update(at, v));
    let mut complete = Vec::new();
    weighted.encode_complete(&mut complete);
    assert_eq!(
        hex(&TimeWeighted::<u64>::decode(&complete).unwrap()),
        "2d03000065011710a617030000000000000080\
         94ebdc030100000000000000\
         062201122f6859"
    );
}

#[test]
fn headers_say_what_a_partial_is() {
    let bytes = bytes_of(&fed(&["hi"], |p: &mut Max<String>, t| p.update(t)));
    let header = Header::read(&bytes).unwrap();
    assert_eq!((header.function, header.values), (Function::Max, Some(FieldType::String)));
}
