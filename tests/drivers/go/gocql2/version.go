// SPDX-License-Identifier: Apache-2.0

package main

// gocql driver: github.com/apache/cassandra-gocql-driver/v2

import (
	gocql "github.com/apache/cassandra-gocql-driver/v2"
	"github.com/apache/cassandra-gocql-driver/v2/lz4"
	"github.com/apache/cassandra-gocql-driver/v2/snappy"
)

const vectors = true

func compressor(name string) gocql.Compressor {
	switch name {
	case "lz4":
		return lz4.LZ4Compressor{}
	case "snappy":
		return snappy.SnappyCompressor{}
	}
	return nil
}
