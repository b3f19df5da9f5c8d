// The same tests, with volumes in an object store.
process.env['PADDOCK_TEST_VOLUMES'] = 'object-store';
await import('../volume-attachments.test.ts');
