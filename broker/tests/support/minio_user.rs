//! Users of MinIO with policies of their own, made by its administration API, which wants bodies encrypted with the caller's secret.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support"
)]

use crate::s3::Server;
use crate::signed::{root, send};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use std::num::NonZeroU32;
use std::time::Duration;

/// Times that a user is made: while MinIO still loads what it keeps of users, it may forget a policy that it has just taken.
const TRIES: u32 = 30;

/// Adds a user that may do what the policy says.
pub async fn add(server: &Server, id: &str, secret: &str, policy: &str) {
    let user = format!(r#"{{"secretKey":"{secret}","status":"enabled"}}"#);
    let user = encrypted(&server.password, user.as_bytes());
    let attach =
        format!("/minio/admin/v3/set-user-or-group-policy?policyName={id}&userOrGroup={id}&isGroup=false");
    for last in (0..TRIES).rev() {
        let made = async {
            call(server, &format!("/minio/admin/v3/add-canned-policy?name={id}"), policy.as_bytes()).await?;
            call(server, &format!("/minio/admin/v3/add-user?accessKey={id}"), &user).await?;
            call(server, &attach, b"").await
        };
        match made.await {
            Ok(()) => return,
            Err(why) if last == 0 || !why.contains("XMinioAdminNoSuch") => panic!("{why}"),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn call(server: &Server, path: &str, body: &[u8]) -> Result<(), String> {
    let answer = send(server, &root(server), "PUT", path, body).await;
    if answer.status.is_success() {
        return Ok(());
    }
    Err(format!("{path}: {} {}", answer.status, answer.text()))
}

/// As its administration API reads it: salt, cipher, nonce, and one chunk of AES-256-GCM whose associated data says that it is the last.
fn encrypted(password: &str, data: &[u8]) -> Vec<u8> {
    let (salt, nonce) = ([7_u8; 32], [9_u8; 8]);
    let mut key = [0; 32];
    let cost = NonZeroU32::new(8_192).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, cost, &salt, password.as_bytes(), &mut key);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let numbered = |n: u32| {
        let mut all = [0; 12];
        all[..8].copy_from_slice(&nonce);
        all[8..].copy_from_slice(&n.to_le_bytes());
        Nonce::assume_unique_for_key(all)
    };
    let mut tag = Vec::new();
    key.seal_in_place_append_tag(numbered(0), Aad::empty(), &mut tag).unwrap();
    let mut aad = vec![0x80];
    aad.extend(tag);
    let mut sealed = data.to_vec();
    key.seal_in_place_append_tag(numbered(1), Aad::from(aad), &mut sealed).unwrap();
    [&salt[..], &[2], &nonce, &sealed].concat()
}
