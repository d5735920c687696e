//! Member and cluster IDs, bit for bit as etcd computes them.
//!
//! A member is its peer URLs and the cluster token; its name is not part of it. A cluster is its initial members.
//! Members added at run time mix in the second of their addition and take no token, and leave the cluster ID as it was.

use sha1::{Digest, Sha1};

/// Computes a member's ID: the first 8 bytes, big endian, of SHA-1 over the peer URLs in byte order, the token,
/// and for a member added at run time the Unix second of its addition in decimal.
///
/// `token` is the initial cluster token at bootstrap and empty for a member added at run time.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<u64>) -> u64 {
    let mut sorted: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url.as_bytes());
    }
    hash.update(token.as_bytes());
    if let Some(second) = added_at {
        hash.update(second.to_string().as_bytes());
    }
    first_eight(hash)
}

/// Computes the cluster ID: the first 8 bytes, big endian, of SHA-1 over the initial members' IDs, ascending, each
/// as 8 bytes big endian.
#[must_use]
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut sorted = member_ids.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for id in sorted {
        hash.update(id.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    hash.finalize()
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of what a real etcd printed: the peer URLs of each member, the token, member IDs in the same order
    /// (0: not recorded), and the cluster ID.
    struct Vector {
        members: &'static [&'static [&'static str]],
        token: &'static str,
        ids: &'static [u64],
        cluster: u64,
    }

    const HTTP3: &[&[&str]] = &[
        &["http://10.0.1.10:2380"],
        &["http://10.0.1.11:2380"],
        &["http://10.0.1.12:2380"],
    ];

    #[test]
    fn ids_equal_those_of_a_real_etcd() {
        let vectors = [
            Vector {
                members: HTTP3,
                token: "etcd-cluster-1",
                ids: &[
                    0x140f_edbe_eb74_765d,
                    0xd5dc_5f8d_75d0_4e29,
                    0x08a0_a11c_6194_fc77,
                ],
                cluster: 0xaccc_c891_2db0_cd57,
            },
            Vector {
                members: HTTP3,
                token: "etcd-cluster",
                ids: &[
                    0x794a_ea3b_a77a_1d64,
                    0xe259_3837_7bdd_2340,
                    0x9d48_0e1d_b4dd_ec45,
                ],
                cluster: 0xe33c_d1f1_301c_41a0,
            },
            Vector {
                members: &[
                    &["https://10.0.1.10:2380"],
                    &["https://10.0.1.11:2380"],
                    &["https://10.0.1.12:2380"],
                ],
                token: "etcd-cluster-1",
                ids: &[
                    0x1e80_2f06_edc5_3c20,
                    0x2b4c_daea_5008_bdf4,
                    0xea5d_2d0d_48e5_0614,
                ],
                cluster: 0x374a_f106_fe0f_0dcd,
            },
            Vector {
                members: &[
                    &["http://infra0.example.com:2380"],
                    &["http://infra1.example.com:2380"],
                    &["http://infra2.example.com:2380"],
                ],
                token: "etcd-cluster-1",
                ids: &[
                    0xa434_bc97_7dbb_af3e,
                    0x8931_5860_d4cc_e8f0,
                    0x518d_77c6_d7c5_a9c1,
                ],
                cluster: 0xc8ba_12a1_c26d_31b1,
            },
            Vector {
                members: &[
                    &["https://infra0.example.com:2380"],
                    &["https://infra1.example.com:2380"],
                    &["https://infra2.example.com:2380"],
                ],
                token: "etcd-cluster-1",
                ids: &[
                    0xb945_12c1_4e70_514a,
                    0xadd3_5115_0c89_5e38,
                    0x895c_3ef0_0331_fbe2,
                ],
                cluster: 0x3de0_3968_7584_3349,
            },
            Vector {
                members: &[
                    &["http://10.0.1.10:2380"],
                    &["http://10.0.1.11:2380"],
                    &["http://10.0.1.13:2380"],
                ],
                token: "etcd-cluster",
                ids: &[0, 0, 0xd4c8_049a_9708_f481],
                cluster: 0xde83_bfe8_2257_35ab,
            },
            Vector {
                members: &[
                    &["http://10.0.1.10:2380"],
                    &["http://10.0.1.11:2380"],
                    &["http://10.0.1.13:2380"],
                ],
                token: "etcd-cluster-1",
                ids: &[0, 0, 0xf112_c368_9466_e8f0],
                cluster: 0xd1ac_4783_b778_aee4,
            },
            Vector {
                members: &[
                    &["http://10.0.1.10:2380"],
                    &["http://10.0.1.11:2380"],
                    &["http://10.0.1.12:2380"],
                    &["http://10.0.1.13:2380"],
                ],
                token: "etcd-cluster-1",
                ids: &[0; 4],
                cluster: 0x4979_58a1_ee33_0489,
            },
            Vector {
                members: &[&["http://localhost:2380"]],
                token: "etcd-cluster",
                ids: &[0x8e9e_05c5_2164_694d],
                cluster: 0xcdf8_1819_4e3a_8c32,
            },
            Vector {
                members: &[&["http://10.0.1.10:2380"]],
                token: "etcd-cluster",
                ids: &[0x794a_ea3b_a77a_1d64],
                cluster: 0x83eb_7a6f_656e_0755,
            },
            Vector {
                members: &[&["http://10.0.1.10:2380", "http://127.0.0.1:2380"]],
                token: "etcd-cluster",
                ids: &[0xa458_8e7d_02c2_cd50],
                cluster: 0x2f71_54b8_ce58_fd08,
            },
            Vector {
                members: HTTP3,
                token: "http://10.0.1.2:4001/v2/keys/discovery/6c007a14875d53d9bf0ef5a6fc0257c817f0fb8334",
                ids: &[
                    0x7482_cc3c_5489_76e5,
                    0xb796_5bd9_865a_e3bd,
                    0x2193_f870_80e2_5893,
                ],
                cluster: 0x96ce_4598_a15f_640a,
            },
            Vector {
                members: HTTP3,
                token: "https://myetcd.local/v2/keys/discovery/6c007a14875d53d9bf0ef5a6fc0257c817f0fb83",
                ids: &[
                    0x7544_f68b_e372_2153,
                    0x2095_d45f_bac4_864d,
                    0x09a4_93e9_9b9a_a71c,
                ],
                cluster: 0x20d3_7e5c_2d82_3ac2,
            },
            Vector {
                members: HTTP3,
                token: "restored-1",
                ids: &[
                    0xe3f1_fa30_fc6d_d053,
                    0x9e55_eef3_6491_a608,
                    0x91e9_8935_a9ff_38f2,
                ],
                cluster: 0x7216_e6e6_ce46_d490,
            },
            Vector {
                members: &[
                    &["http://127.0.0.1:12380"],
                    &["http://127.0.0.1:22380"],
                    &["http://127.0.0.1:32380"],
                ],
                token: "etcd-cluster-1",
                ids: &[
                    0x8211_f1d0_f64f_3269,
                    0x91bc_3c39_8fb3_c146,
                    0xfd42_2379_fda5_0e48,
                ],
                cluster: 0xef37_ad9d_c622_a7c4,
            },
            Vector {
                members: &[
                    &["http://localhost:7001"],
                    &["http://localhost:7002"],
                    &["http://localhost:7003"],
                ],
                token: "etcd",
                ids: &[0; 3],
                cluster: 0xc6ab_534d_07e8_fcc4,
            },
            Vector {
                members: &[
                    &["http://localhost:7001"],
                    &["http://localhost:7002"],
                    &["http://localhost:7003"],
                    &["http://localhost:7004"],
                ],
                token: "etcd",
                ids: &[0; 4],
                cluster: 0xbc25_ea2a_74fb_18b0,
            },
        ];
        for Vector {
            members,
            token,
            ids,
            cluster,
        } in vectors
        {
            let computed: Vec<u64> = members
                .iter()
                .map(|urls| {
                    member_id(
                        &urls.iter().map(ToString::to_string).collect::<Vec<_>>(),
                        token,
                        None,
                    )
                })
                .collect();
            for (want, got) in ids.iter().zip(&computed).filter(|(want, _)| **want != 0) {
                assert_eq!(
                    format!("{got:x}"),
                    format!("{want:x}"),
                    "{members:?} {token}"
                );
            }
            assert_eq!(
                format!("{:x}", cluster_id(&computed)),
                format!("{cluster:x}"),
                "{members:?} {token}"
            );
        }
    }

    #[test]
    fn a_member_added_at_run_time_hashes_the_second_of_its_addition() {
        let urls = ["http://10.0.1.13:9999".to_owned()];
        assert_eq!(
            member_id(&urls, "", Some(1_795_247_316)),
            0x501e_6194_8906_d474
        );
    }

    #[test]
    fn order_of_urls_and_of_members_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:2".to_owned());
        assert_eq!(
            member_id(&[a.clone(), b.clone()], "t", None),
            member_id(&[b, a], "t", None)
        );
        assert_eq!(cluster_id(&[3, 1, 2]), cluster_id(&[1, 2, 3]));
    }
}
