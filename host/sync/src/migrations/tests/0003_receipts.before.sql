insert into convoke.requests (project, session, request, result)
  values ('demo', '3b9f3c9e-6d0f-4a6e-8f0e-0f3c1f8f2a11', 7, '"kept"');
