-- The MAC that the writer of a row has made over it, with the number of its key. Rows of releases before this one have none.
ALTER TABLE audit ADD COLUMN writer_mac bytea;
