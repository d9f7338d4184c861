-- The analysts' user of a ClickHouse server, for an administrator to run once, after `tideline migrate` has made the views:
--   clickhouse-client --multiquery --param_password='…' < grants.sql
-- Standalone needs none of this: its engine has no users, and cmd/chdb keeps readers within the same views. The syntax of
-- this file is checked; it was not run on a server.

CREATE SETTINGS PROFILE IF NOT EXISTS tideline_reader SETTINGS
  readonly = 1,
  max_execution_time = 30 CONST,
  timeout_overflow_mode = 'throw' CONST,
  max_memory_usage = 1073741824 CONST,
  max_result_rows = 1000000 CONST,
  max_result_bytes = 268435456 CONST,
  result_overflow_mode = 'throw' CONST,
  max_temporary_data_on_disk_size_for_query = 1073741824 CONST,
  allow_introspection_functions = 0 CONST;

CREATE USER IF NOT EXISTS tideline_reader IDENTIFIED WITH sha256_password BY {password:String}
  DEFAULT DATABASE tideline_analysis SETTINGS PROFILE 'tideline_reader';

GRANT SELECT ON tideline_analysis.* TO tideline_reader;
