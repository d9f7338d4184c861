import java.sql.*;
import java.util.*;

/** Asks what BI tools ask. Arguments: address, user, password, options as name=value. */
public class Client {
    public static void main(String[] args) throws Exception {
        Properties options = new Properties();
        options.setProperty("user", args[1]);
        options.setProperty("password", args[2]);
        for (int i = 3; i < args.length; i++) {
            String[] pair = args[i].split("=", 2);
            options.setProperty(pair[0], pair[1]);
        }
        try (Connection c = DriverManager.getConnection("jdbc:clickhouse:" + args[0], options)) {
            DatabaseMetaData meta = c.getMetaData();
            System.out.println("product " + meta.getDatabaseProductName() + " " + (meta.getDatabaseMajorVersion() > 20));
            List<String> found = new ArrayList<>();
            try (ResultSet r = meta.getSchemas()) {
                while (r.next()) found.add(r.getString("TABLE_SCHEM"));
            }
            System.out.println("schemas " + found);
            found.clear();
            try (ResultSet r = meta.getTables(null, null, "%", null)) {
                while (r.next()) found.add(r.getString("TABLE_SCHEM") + "." + r.getString("TABLE_NAME"));
            }
            Collections.sort(found);
            System.out.println("tables " + found);
            found.clear();
            try (ResultSet r = meta.getColumns(null, null, "messages", "%")) {
                while (r.next()) found.add(r.getString("TABLE_SCHEM") + "." + r.getString("COLUMN_NAME"));
            }
            System.out.println("columns " + found);
            found.clear();
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SHOW TABLES")) {
                while (r.next()) found.add(r.getString(1));
            }
            System.out.println("shown " + found);
            try (PreparedStatement s = c.prepareStatement("SELECT count(), min(text) FROM messages WHERE conversation_id = ? AND seq <= ?")) {
                s.setString(1, "g-1");
                s.setLong(2, 17);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    System.out.println("parameters " + r.getLong(1) + " " + r.getString(2));
                }
            }
            long rows = 0, sum = 0;
            Timestamp last = null;
            try (Statement s = c.createStatement();
                ResultSet r = s.executeQuery("SELECT seq, text, sent_at, mentions, recalled FROM messages WHERE conversation_id = 'g-1' ORDER BY seq LIMIT 10000")) {
                while (r.next()) {
                    rows++;
                    sum += r.getLong("seq");
                    last = r.getTimestamp("sent_at");
                    if (!r.getString("text").equals("hello harbour") || r.getBoolean("recalled")) throw new IllegalStateException("row " + rows);
                }
            }
            System.out.println("rows " + rows + " " + sum + " " + last.toInstant());
            try (Statement s = c.createStatement()) {
                s.executeQuery("SELECT * FROM nowhere");
                System.out.println("no error");
            } catch (SQLException e) {
                System.out.println("error " + e.getMessage().contains("nowhere"));
            }
        }
    }
}
