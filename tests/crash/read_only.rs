//! A file system that turns read-only while the server runs, as Linux does on an error of the disk: nothing
//! more is acknowledged, reads go on, the process stays up, and after a repair and a restart everything
//! acknowledged is there.

use crate::{
    disk_full::Appender,
    mount::SmallDisk,
    oracle,
    server::{SMALL, Setup},
};

#[test]
fn a_file_system_that_turns_read_only_loses_nothing_acknowledged() {
    let Some(disk) = SmallDisk::mount_ext4("64m") else { return };
    let mut setup = Setup::on(SMALL, &disk.path.join("data"));
    setup.prefix = disk.prefix();
    let mut server = setup.start();
    let mut client = server.client();
    let mut stream = Appender::create(&mut client, "read/only");
    for _ in 0..200 {
        assert_eq!(stream.append(&mut client, 5000).status, 204);
    }

    disk.fail();
    let refused = loop {
        // What the log had reserved may still be written; what is acknowledged must be found again.
        let reply = stream.append(&mut client, 5000);
        if reply.status != 204 {
            break reply;
        }
        assert!(stream.acknowledged.len() < 5000, "it goes on as if nothing had happened");
    };
    assert_eq!((refused.status, refused.code()), (503, "unavailable".into()), "{refused:?}");
    let attempted = stream.acknowledged.len() + 1;
    for _ in 0..5 {
        let reply = stream.append(&mut client, 5000);
        assert_eq!((reply.status, reply.code()), (503, "unavailable".into()), "{reply:?}");
    }
    stream.check(&mut client);
    assert!(server.is_running());
    server.kill();

    disk.mend();
    let server = setup.start();
    let found = oracle::rest(&mut server.client(), "read/only", "-1", false).unwrap().records;
    assert!(found.starts_with(&stream.acknowledged), "an acknowledged append is gone");
    // One append may have been on its way to the disk; the ones after it were never written.
    assert!(found.len() <= attempted, "{} records, {attempted} were attempted", found.len());
    stream.acknowledged = found;
    stream.until_accepted(&mut server.client());
    stream.check(&mut server.client());
}
