//! Functions that analysts of mail need.

use arrow::array::{Array as _, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::types::{logical_int64, logical_string};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    TypeSignatureClass, Volatility,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// All of them.
pub(super) fn all() -> [ScalarUDF; 2] {
    [ScalarUDF::from(Function::new(Kind::DomainOf)), ScalarUDF::from(Function::new(Kind::NetworkOf))]
}

/// `domain_of(address)`: what follows the last `@`, in lower case; NULL without one.
/// `network_of(address, bits)`: the IP network of so many leading bits, e.g. `203.0.113.0/24`; without `bits` of 24 for
/// IPv4 and 48 for IPv6; NULL for what is no address.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    kind: Kind,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    DomainOf,
    NetworkOf,
}

impl Function {
    fn new(kind: Kind) -> Self {
        let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        let number = || {
            let whole = vec![TypeSignatureClass::Integer];
            Coercion::new_implicit(
                TypeSignatureClass::Native(logical_int64()),
                whole,
                datafusion::common::types::NativeType::Int64,
            )
        };
        let signature = match kind {
            Kind::DomainOf => Signature::coercible(vec![text()], Volatility::Immutable),
            Kind::NetworkOf => Signature::one_of(
                vec![TypeSignature::Coercible(vec![text()]), TypeSignature::Coercible(vec![text(), number()])],
                Volatility::Immutable,
            ),
        };
        Self { kind, signature }
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::DomainOf => "domain_of",
            Kind::NetworkOf => "network_of",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let bits = arrays.get(1).map(|bits| cast(bits, &DataType::Int64)).transpose()?;
        let bits = bits.as_ref().map(AsArray::as_primitive::<Int64Type>);
        let mut found = StringBuilder::new();
        for row in 0..texts.len() {
            let text = texts.is_valid(row).then(|| texts.value(row));
            found.append_option(text.and_then(|text| match (self.kind, bits) {
                (Kind::DomainOf, _) => domain_of(text),
                (Kind::NetworkOf, None) => network_of(text, None),
                (Kind::NetworkOf, Some(bits)) if bits.is_valid(row) => network_of(text, Some(bits.value(row))),
                (Kind::NetworkOf, Some(_)) => None,
            }));
        }
        let found: ArrayRef = Arc::new(found.finish());
        if is_scalar {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(found))
    }
}

fn domain_of(address: &str) -> Option<String> {
    let (_, domain) = address.trim_end_matches('>').rsplit_once('@')?;
    (!domain.is_empty()).then(|| domain.to_lowercase())
}

fn network_of(address: &str, bits: Option<i64>) -> Option<String> {
    let address: IpAddr = address.parse().ok()?;
    let (width, usual) = if address.is_ipv4() { (32, 24) } else { (128, 48) };
    let bits = u32::try_from(bits.unwrap_or(usual)).ok().filter(|bits| *bits <= width)?;
    let network = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(width - bits).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(width - bits).unwrap_or(0);
            IpAddr::from(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    };
    Some(format!("{network}/{bits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_networks() {
        assert_eq!(domain_of("Jo <jo@Example.ORG>").as_deref(), Some("example.org"));
        assert_eq!(domain_of("a@b@c.test").as_deref(), Some("c.test"));
        assert!(domain_of("local:www-data").is_none() && domain_of("jo@").is_none());
        assert_eq!(network_of("203.0.113.77", Some(24)).as_deref(), Some("203.0.113.0/24"));
        assert_eq!(network_of("203.0.113.77", Some(0)).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(network_of("203.0.113.77", Some(32)).as_deref(), Some("203.0.113.77/32"));
        assert_eq!(network_of("2001:db8:1:2::3", None).as_deref(), Some("2001:db8:1::/48"));
        for (address, bits) in [("203.0.113.77", 33), ("203.0.113.77", -1), ("nonsense", 8), ("", 8)] {
            assert_eq!(network_of(address, Some(bits)), None, "{address}/{bits}");
        }
    }
}
