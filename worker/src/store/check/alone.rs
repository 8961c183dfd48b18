//! What one client after the other finds out.

use super::{Fail, Ground, broken, done, holds, refused};
use crate::store::{Listed, Version};

/// Writes that must be refused leave everything as it was.
pub(super) fn conditions(ground: &Ground<'_>) -> Result<String, Fail> {
    let (a, b) = (ground.client(0), ground.client(1));
    let (file, manifest) = (ground.key("file"), ground.key("manifest"));
    holds(a, &manifest, None, "before anything was written")?;
    let of_file = done(a.put(&file, b"one"), "creating an object")?;
    refused(b.put(&file, b"two"), "creating an object that is there")?;
    holds(a, &file, Some(b"one"), "after another one wanted to create it too")?;

    refused(a.swap(&manifest, Some(&of_file), b"x"), "replacing an object that is not there")?;
    holds(b, &manifest, None, "after a replacement of nothing")?;
    let first = done(a.swap(&manifest, None, b"x"), "creating a manifest")?;
    refused(b.swap(&manifest, None, b"y"), "creating a manifest that is there")?;
    let second = done(b.swap(&manifest, Some(&first), b"yy"), "replacing a version")?;
    if first == second {
        return broken("two contents have one version");
    }
    refused(a.swap(&manifest, Some(&first), b"z"), "replacing a version that was replaced")?;
    refused(a.swap(&manifest, Some(&Version("0".repeat(32))), b"z"), "replacing a version that never was")?;
    holds(b, &manifest, Some(b"yy"), "after writes that were refused")?;
    let found = a.get(&manifest)?.map(|object| object.version);
    if found.as_ref() != Some(&second) {
        return broken("an object is read with another version than it was written with");
    }
    Ok("6 writes that had to be refused were".to_owned())
}

/// Each write is looked for by clients that did not write it.
pub(super) fn freshness(ground: &Ground<'_>) -> Result<String, Fail> {
    let key = ground.key("fresh");
    let mut version = None;
    for look in 0..ground.effort.looks {
        let content = vec![b'a' + (look % 26) as u8; look + 1];
        let (writer, reader, lister) = (ground.client(look), ground.client(look + 1), ground.client(look + 2));
        version = Some(done(writer.swap(&key, version.as_ref(), &content), "replacing the newest version")?);
        holds(reader, &key, Some(&content), "right after a write")?;
        let listed = lister.list(&key)?;
        if listed != [Listed { key: key.clone(), size_bytes: content.len() as u64 }] {
            return broken(format!("right after a write of {} bytes to {key}, {listed:?} was listed", content.len()));
        }
    }
    Ok(format!("{} writes, each read and listed by others at once", ground.effort.looks))
}

pub(super) fn listing(ground: &Ground<'_>) -> Result<String, Fail> {
    let name = |i: usize| ground.key(format_args!("list-{i:06}"));
    // Not in order, and one of them empty.
    let objects = ground.effort.objects;
    for i in (0..objects).rev() {
        done(ground.client(i).put(&name(i), &vec![b'x'; i]), "creating an object")?;
    }
    done(ground.client(0).put(&ground.key("lisu"), b"x"), "creating an object")?;
    let expected: Vec<Listed> = (0..objects).map(|i| Listed { key: name(i), size_bytes: i as u64 }).collect();
    for (number, client) in ground.clients.iter().enumerate() {
        let listed = client.list(&ground.key("list"))?;
        if listed != expected {
            let wrong = listed.iter().zip(&expected).find(|(a, b)| a != b).map(|(a, _)| &a.key);
            let (found, wrong) =
                (listed.len(), wrong.map(|key| format!(", the first wrong one {key}")).unwrap_or_default());
            return broken(format!("client {number} was told {found} of {objects} objects{wrong}"));
        }
    }
    Ok(format!("{objects} objects, listed by all clients"))
}

pub(super) fn deletion(ground: &Ground<'_>) -> Result<String, Fail> {
    let (a, b) = (ground.client(0), ground.client(1));
    let [gone, stays] = ["delete-1", "delete-10"].map(|name| ground.key(name));
    let version = done(a.put(&gone, b"gone"), "creating an object")?;
    done(a.put(&stays, b"stays"), "creating an object")?;
    a.delete(&gone)?;
    holds(b, &gone, None, "after it was deleted")?;
    a.delete(&gone)?;
    holds(b, &stays, Some(b"stays"), "after another object was deleted")?;
    refused(b.swap(&gone, Some(&version), b"back"), "replacing an object that was deleted")?;
    let listed = b.list(&gone)?;
    if listed.len() != 1 || listed[0].key != stays {
        return broken(format!("after {gone} was deleted, {listed:?} was listed"));
    }
    Ok("an object deleted twice, and the one beside it left".to_owned())
}
