-- Where the token of a sign-in was made; '': not known.
ALTER TABLE personal_tokens ADD COLUMN address text NOT NULL DEFAULT '';
