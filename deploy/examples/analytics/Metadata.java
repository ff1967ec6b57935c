import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.TimeUnit;

/**
 * Reads Tidegate's history through the Flight SQL JDBC driver, with the calls that DBeaver and Tableau make.
 *
 * <pre>java --add-opens=java.base/java.nio=ALL-UNNAMED -cp flight-sql-jdbc-driver-18.3.0.jar Metadata.java URL COMMAND ...</pre>
 *
 * The URL is that of README.md. TIDEGATE_TOKEN_FILE names a file with a token, which is given as the password.
 * Commands: metadata; query SQL [PARAMETER ...]; limits SQL; cancel SQL. What is found goes to standard output, a row a line
 * with | between columns; an error goes to standard error.
 */
public final class Metadata {
    private Metadata() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 2) {
            System.err.println("usage: Metadata.java URL metadata | query SQL [PARAMETER ...] | limits SQL | cancel SQL");
            System.exit(2);
        }
        try (Connection connection = DriverManager.getConnection(arguments[0], properties())) {
            switch (arguments[1]) {
                case "metadata" -> metadata(connection);
                case "query" -> query(connection, arguments[2], List.of(arguments).subList(3, arguments.length));
                case "limits" -> limits(connection, arguments[2]);
                case "cancel" -> cancel(connection, arguments[2]);
                default -> throw new IllegalArgumentException("there is no command " + arguments[1]);
            }
        } catch (SQLException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }

    /** The token as the password; whoever it belongs to, the name may be any. */
    private static Properties properties() throws IOException {
        Properties properties = new Properties();
        String tokenFile = System.getenv("TIDEGATE_TOKEN_FILE");
        if (tokenFile != null) {
            properties.put("user", "analyst");
            properties.put("password", Files.readString(Path.of(tokenFile)).trim());
        }
        return properties;
    }

    /** What a tool asks before it shows its tree of tables. */
    private static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData data = connection.getMetaData();
        System.out.println("product|" + data.getDatabaseProductName() + "|" + data.getDatabaseProductVersion());
        System.out.println("read only|" + data.isReadOnly() + "|transactions|" + data.supportsTransactions()
                + "|quote|" + data.getIdentifierQuoteString() + "|isolation|" + data.getDefaultTransactionIsolation());
        System.out.println("keywords|" + data.getSQLKeywords());
        System.out.println("functions|" + data.getStringFunctions() + "|" + data.getNumericFunctions() + "|"
                + data.getTimeDateFunctions() + "|" + data.getSystemFunctions());
        System.out.println("supports|outer joins " + data.supportsOuterJoins() + "|group by " + data.supportsGroupBy()
                + "|union " + data.supportsUnion() + "|subqueries " + data.supportsCorrelatedSubqueries()
                + "|stored procedures " + data.supportsStoredProcedures() + "|batch " + data.supportsBatchUpdates());
        print("catalog", data.getCatalogs());
        print("schema", data.getSchemas());
        print("schema of the catalog", data.getSchemas("tidegate", "history"));
        print("table type", data.getTableTypes());
        print("table", data.getTables("tidegate", "history", "%", new String[] {"TABLE", "VIEW"}));
        print("column", data.getColumns("tidegate", "history", "events", "%"));
        print("column of a view", data.getColumns(null, null, "locks", "lock_id"));
        print("primary key", data.getPrimaryKeys("tidegate", "history", "events"));
        print("imported key", data.getImportedKeys("tidegate", "history", "events"));
        print("exported key", data.getExportedKeys("tidegate", "history", "events"));
        print("type", data.getTypeInfo());
    }

    /** A query; with parameters it is prepared, and each ? gets the next. */
    private static void query(Connection connection, String sql, List<String> parameters) throws SQLException {
        if (parameters.isEmpty()) {
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
                print(rows);
            }
            return;
        }
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int index = 0; index < parameters.size(); index++) {
                bind(statement, index + 1, parameters.get(index));
            }
            try (ResultSet rows = statement.executeQuery()) {
                print(rows);
            }
        }
    }

    /** A number, a time such as 2026-11-26T00:00:00Z and a day such as 2026-11-26 as such; everything else as text. */
    private static void bind(PreparedStatement statement, int index, String value) throws SQLException {
        if (value.matches("-?\\d+")) {
            statement.setLong(index, Long.parseLong(value));
        } else if (value.matches("\\d{4}-\\d\\d-\\d\\dT.*Z")) {
            statement.setTimestamp(index, Timestamp.from(Instant.parse(value)));
        } else if (value.matches("\\d{4}-\\d\\d-\\d\\d")) {
            statement.setDate(index, Date.valueOf(value));
        } else {
            statement.setString(index, value);
        }
    }

    /** Tools show the first rows of a large answer, fetch it in parts, and do not wait for ever. */
    private static void limits(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setMaxRows(2);
            statement.setFetchSize(1);
            statement.setQueryTimeout(60);
            try (ResultSet rows = statement.executeQuery(sql)) {
                print(rows);
            }
        }
    }

    /** Asks what takes long, and cancels it from another thread. */
    private static void cancel(Connection connection, String sql) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    TimeUnit.SECONDS.sleep(1);
                    statement.cancel();
                } catch (SQLException | InterruptedException error) {
                    System.err.println("cancelling failed: " + error.getMessage());
                }
            });
            canceller.start();
            try (ResultSet rows = statement.executeQuery(sql)) {
                print(rows);
            } finally {
                canceller.join();
            }
        }
    }

    private static void print(String what, ResultSet rows) throws SQLException {
        try (rows) {
            while (rows.next()) {
                System.out.println(what + "|" + line(rows));
            }
        }
    }

    private static void print(ResultSet rows) throws SQLException {
        while (rows.next()) {
            System.out.println(line(rows));
        }
    }

    private static String line(ResultSet rows) throws SQLException {
        ResultSetMetaData columns = rows.getMetaData();
        List<String> cells = new ArrayList<>();
        for (int column = 1; column <= columns.getColumnCount(); column++) {
            // By name: 18.3.0 of the driver cannot give a time by its number (apache/arrow-java issue 839).
            Object value = rows.getObject(columns.getColumnLabel(column));
            cells.add(value == null ? "-" : value.toString());
        }
        return String.join("|", cells);
    }
}
