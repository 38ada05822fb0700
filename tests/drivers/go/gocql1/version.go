// SPDX-License-Identifier: Apache-2.0

package main

// gocql driver: github.com/gocql/gocql

import "github.com/gocql/gocql"

const vectors = false

// compressor: its package for lz4 is not among the published versions.
func compressor(name string) gocql.Compressor {
	if name == "snappy" {
		return gocql.SnappyCompressor{}
	}
	return nil
}
