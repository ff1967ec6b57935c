//! What the server is and can, as clients ask for it. The JDBC driver asks for all of it at once, and a tool that then
//! finds an answer missing fails: so everything that a tool may ask has one.

use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity};
use datafusion::functions::{core, datetime, math, string, unicode};
use datafusion::logical_expr::ScalarUDF;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Words of the dialect that are none of SQL:2003's.
const KEYWORDS: [&str; 12] = [
    "ANTI", "DESCRIBE", "EXCLUDE", "EXPLAIN", "ILIKE", "LIMIT", "OFFSET", "QUALIFY", "RLIKE", "SEMI", "SHOW",
    "TRY_CAST",
];

/// Functions of mail that are ours.
const OWN_FUNCTIONS: [&str; 2] = ["domain_of", "network_of"];

/// All of it.
pub(super) fn sql_info() -> &'static SqlInfoData {
    static INFO: LazyLock<SqlInfoData> = LazyLock::new(|| {
        let mut info = SqlInfoDataBuilder::new();
        server(&mut info);
        names(&mut info);
        words(&mut info);
        grammar(&mut info);
        transactions(&mut info);
        bounds(&mut info);
        #[allow(clippy::unwrap_used, reason = "what is appended is known, and built in a test")]
        info.build().unwrap()
    });
    &INFO
}

fn server(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::FlightSqlServerName, "Tidegate history");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerTransaction, 0_i32);
    for (what, is_so) in [
        (SqlInfo::FlightSqlServerReadOnly, true),
        (SqlInfo::FlightSqlServerSql, true),
        (SqlInfo::FlightSqlServerSubstrait, false),
        (SqlInfo::FlightSqlServerCancel, true),
        (SqlInfo::FlightSqlServerBulkIngestion, false),
        (SqlInfo::FlightSqlServerIngestTransactionsSupported, false),
    ] {
        info.append(what, is_so);
    }
}

fn names(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    info.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
}

fn words(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlKeywords, &KEYWORDS[..]);
    info.append(SqlInfo::SqlNumericFunctions, named(&math::functions(), &[]));
    let texts = string::functions().into_iter().chain(unicode::functions()).collect::<Vec<_>>();
    info.append(SqlInfo::SqlStringFunctions, named(&texts, &OWN_FUNCTIONS));
    info.append(SqlInfo::SqlDatetimeFunctions, named(&datetime::functions(), &[]));
    info.append(SqlInfo::SqlSystemFunctions, named(&core::functions(), &[]));
}

fn grammar(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSupportsConvert, HashMap::new());
    for (what, mask) in [
        // By columns that are not selected, and by more than those.
        (SqlInfo::SqlSupportedGroupBy, 0b11),
        // Minimum and core, of ODBC.
        (SqlInfo::SqlSupportedGrammar, 0b11),
        // Entry level.
        (SqlInfo::SqlAnsi92SupportedLevel, 0b1),
        // Limited and full.
        (SqlInfo::SqlOuterJoinsSupportLevel, 0b110),
        (SqlInfo::SqlSupportedPositionedCommands, 0),
        // In comparisons, EXISTS and IN.
        (SqlInfo::SqlSupportedSubqueries, 0b111),
        // UNION and UNION ALL.
        (SqlInfo::SqlSupportedUnions, 0b11),
        // Forward only.
        (SqlInfo::SqlSupportedResultSetTypes, 0b10),
        // Read only.
        (SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0b10),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0),
    ] {
        info.append(what, mask);
    }
    for (what, is_so) in [
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, false),
        (SqlInfo::SqlSupportsNonNullableColumns, true),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlNamedParametersSupported, false),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
    ] {
        info.append(what, is_so);
    }
}

fn transactions(info: &mut SqlInfoDataBuilder) {
    // None; as the driver reads it, and not as the protocol's file says, it is a number of 64 bits.
    info.append(SqlInfo::SqlDefaultTransactionIsolation, 0_i64);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, 0b1_i32);
    for what in [
        SqlInfo::SqlDdlCatalog,
        SqlInfo::SqlDdlSchema,
        SqlInfo::SqlDdlTable,
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
        SqlInfo::SqlBatchUpdatesSupported,
        SqlInfo::SqlSavepointsSupported,
    ] {
        info.append(what, false);
    }
}

/// None that a client must know beforehand, which is told as 0.
fn bounds(info: &mut SqlInfoDataBuilder) {
    for what in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        info.append(what, 0_i64);
    }
    info.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

/// The engine's functions by name, and others.
fn named(functions: &[Arc<ScalarUDF>], more: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = functions.iter().map(|function| function.name().to_owned()).collect();
    names.extend(more.iter().map(|name| (*name).to_owned()));
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_of_sql_has_an_answer() {
        // Numbers 500 to 576 are the protocol's, without a gap.
        for question in 500..=576 {
            assert_eq!(sql_info().record_batch([question]).unwrap().num_rows(), 1, "{question}");
        }
    }

    #[test]
    fn functions_are_told_by_name() {
        let names = named(&math::functions(), &OWN_FUNCTIONS);
        assert!(names.len() > 10 && names.contains(&"round".to_owned()) && names.contains(&"domain_of".to_owned()));
    }
}
