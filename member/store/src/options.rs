//! The tuning: small memory, one writer, two cores.

use member_state::Table;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DataBlockIndexType, LogLevel, Options,
};

const MIB: usize = 1 << 20;

/// How much memory a database may take. The defaults keep a member with 100,000 keys below 80 MiB in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of unflushed writes per table before all tables are flushed. Each table may hold two such buffers.
    pub write_buffer_bytes: usize,
    /// Bound on the unflushed writes of all tables together.
    pub total_write_buffer_bytes: usize,
    /// Cache of blocks, with their indexes and filters. Blocks that cursors hold may exceed it for as long as they do:
    /// a hard bound would make reads fail.
    pub block_cache_bytes: usize,
    /// Open table files.
    pub max_open_files: i32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 8 * MIB,
            total_write_buffer_bytes: 24 * MIB,
            block_cache_bytes: 16 * MIB,
            max_open_files: 256,
        }
    }
}

/// Options of the database as a whole.
pub(crate) fn database(options: &StoreOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_atomic_flush(true);
    // One thread writes, so what serves many concurrent writers only costs.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    db.set_enable_pipelined_write(false);

    db.set_db_write_buffer_size(options.total_write_buffer_bytes);
    db.set_max_open_files(options.max_open_files);
    db.set_max_file_opening_threads(1);
    db.set_table_cache_num_shard_bits(2);
    db.set_max_background_jobs(2);
    db.set_bytes_per_sync(MIB as u64);
    // The defaults of 2 MiB per input file would dominate the memory of a compaction.
    db.set_compaction_readahead_size(256 << 10);
    db.set_writable_file_max_buffer_size(256 << 10);
    db.set_avoid_unnecessary_blocking_io(true);
    db.set_skip_stats_update_on_db_open(true);

    // RocksDB's own diary: the interesting part reaches the callers as errors.
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(MIB);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db
}

/// One column family per table, all on one cache.
pub(crate) fn families(options: &StoreOptions, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    Table::ALL
        .into_iter()
        .map(|table| ColumnFamilyDescriptor::new(table.name(), family(table, options, cache)))
        .collect()
}

fn family(table: Table, options: &StoreOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(8 << 10);
    blocks.set_format_version(6);
    // Indexes and filters grow with the data: in the cache, in partitions, they do not grow the process.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_pin_top_level_index_and_filter(true);
    if matches!(table, Table::Current | Table::Old) {
        blocks.set_bloom_filter(10.0, false);
        blocks.set_partition_filters(true);
        blocks.set_optimize_filters_for_memory(true);
    }
    if table == Table::Current {
        // Point gets find their key without a binary search in the block.
        blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        blocks.set_data_block_hash_ratio(0.75);
    }

    let mut family = Options::default();
    family.set_block_based_table_factory(&blocks);
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(2);
    // Memory is taken in these steps; close to the buffer's size they would make it flush almost empty.
    family.set_arena_block_size(options.write_buffer_bytes / 32);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_target_file_size_base(16 * MIB as u64);
    family.set_max_bytes_for_level_base(64 * MIB as u64);
    // The newest levels are rewritten soon and hold little.
    let mut compression = [DBCompressionType::Lz4; 7];
    compression[..2].fill(DBCompressionType::None);
    family.set_compression_per_level(&compression);
    family
}
