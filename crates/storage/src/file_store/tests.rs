use super::*;
use highwater_core::ErrorKind;

async fn behaves(files: &FileStore) {
    files.put("a/b%20c/1", "one".into(), PutKind::Create).await.unwrap();
    let again = files.put("a/b%20c/1", "two".into(), PutKind::Create).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(files.get("a/b%20c/1").await.unwrap(), "one");
    files.put("a/b%20c/1", "three".into(), PutKind::Overwrite).await.unwrap();
    assert_eq!(files.get("a/b%20c/1").await.unwrap(), "three");

    let mut log = files.create_log("wal/x").unwrap();
    assert_eq!(files.create_log("wal/x").unwrap_err().kind(), ErrorKind::Conflict);
    log.append(b"hello ").unwrap();
    log.append(b"world").unwrap();
    log.sync().unwrap();
    assert_eq!((log.len(), &files.get("wal/x").await.unwrap()[..]), (11, &b"hello world"[..]));

    assert_eq!(files.list("a").await.unwrap(), [("a/b%20c/1".to_owned(), 5)]);
    assert_eq!(files.list("wal").await.unwrap(), [("wal/x".to_owned(), 11)]);
    assert!(files.list("ab").await.unwrap().is_empty());

    files.truncate_log("wal/x", 5).unwrap();
    assert_eq!(files.get("wal/x").await.unwrap(), "hello");
    files.delete("wal/x").await.unwrap();
    files.delete("wal/x").await.unwrap();
    assert_eq!(files.get("wal/x").await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(files.get("../secret").await.unwrap_err().kind(), ErrorKind::Invalid);
    files.remove_unfinished().unwrap();
    files.put("z", "last".into(), PutKind::Create).await.unwrap();
}

#[tokio::test]
async fn a_folder_a_bucket_and_memory_behave_the_same() {
    let folder = tempfile::tempdir().unwrap();
    behaves(&FileStore::local(&folder.path().join("new/data")).unwrap()).await;
    behaves(&FileStore::in_memory()).await;
    let bucket = Bucket::of("s3://b", Arc::new(FaultyBucket::default()));
    let mark = StoreMark::new("s3://b".parse().unwrap());
    let local = folder.path().join("logs");
    behaves(&FileStore::remote(&local, bucket, mark, Some(100)).unwrap()).await;
    assert!(!local.join("a").exists() && !local.join("z").exists());
}

#[tokio::test]
async fn what_was_put_is_there_after_reopening_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let files = FileStore::local(folder.path()).unwrap();
    files.put("kept", "x".into(), PutKind::Create).await.unwrap();
    files.put("kept", "y".into(), PutKind::Create).await.unwrap_err();
    let unfinished = std::fs::read_dir(folder.path().join("unfinished")).unwrap();
    assert_eq!(unfinished.count(), 0);
    let files = FileStore::local(folder.path()).unwrap();
    assert_eq!(files.get("kept").await.unwrap(), "x");
}
