// Package pgtest gives tests a real, throwaway PostgreSQL. It is for _test files only.
package pgtest
