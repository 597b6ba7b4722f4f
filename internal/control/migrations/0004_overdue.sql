-- The attempts that the settler could not judge when their time was over, because their cluster did not answer. All others
-- below its watermark have an outcome.
CREATE TABLE overdue (
  attempt uuid PRIMARY KEY
);
